//! Thread-locals belong to the green thread: Rust's, libc's, and those of libraries loaded later.
//!
//! Where a scenario makes sense on an OS thread too, it is played on both and must look the same.

#[path = "common/migration.rs"]
mod migration;
#[path = "common/subprocess.rs"]
mod subprocess;

use std::io;
use std::sync::mpsc;

use migration::{WORKERS, among_several_workers, migrate, migrate_after};

mod borrows {
    use super::*;
    use std::cell::RefCell;
    use std::time::Duration;

    thread_local!(static LOG: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) });

    fn borrow_while(rounds: usize, switch: fn()) {
        LOG.with_borrow_mut(|log| {
            for round in 0..rounds {
                log.push(round);
                switch();
                assert_eq!(log.len(), round + 1, "somebody else's log");
            }
        });
        LOG.with_borrow(|log| assert!(log.iter().copied().eq(0..rounds)));
    }

    #[test]
    fn last_over_switches_and_migrations_while_neighbours_borrow_theirs() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for _ in 0..WORKERS - 1 {
                    s.spawn(|| borrow_while(100, migrate));
                }
                for _ in 0..100 {
                    s.spawn(|| borrow_while(50, || uthread::sleep(Duration::from_micros(100))));
                    s.spawn(|| borrow_while(50, uthread::yield_now));
                }
            });
        });
    }
}

mod errno {
    use super::*;
    use std::time::Duration;

    /// Makes a call of libc fail.
    fn fail_with(error: i32) {
        // SAFETY: none of these calls does anything.
        let result = unsafe {
            match error {
                libc::EBADF => libc::close(-1),
                libc::ENOENT => libc::access(c"/no such file".as_ptr(), libc::F_OK),
                libc::EINVAL => libc::kill(0, -1),
                _ => unreachable!("no call was chosen that fails so"),
            }
        };
        assert_eq!(result, -1);
    }

    fn last_error() -> Option<i32> {
        io::Error::last_os_error().raw_os_error()
    }

    /// Compilers find the address of `errno` once per function; here that is before the migration.
    #[inline(never)]
    fn last_error_before_and_after_a_migration() -> (Option<i32>, Option<i32>) {
        fail_with(libc::EINVAL);
        let before = last_error();
        migrate_after(|| fail_with(libc::EBADF));
        (before, last_error())
    }

    #[test]
    fn is_kept_over_migrations_while_neighbours_fail_otherwise() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for _ in 0..WORKERS - 1 {
                    s.spawn(|| {
                        for _ in 0..100 {
                            let errors = last_error_before_and_after_a_migration();
                            assert_eq!(errors, (Some(libc::EINVAL), Some(libc::EBADF)));
                        }
                    });
                }
                for _ in 0..20 {
                    s.spawn(|| {
                        for _ in 0..50 {
                            fail_with(libc::ENOENT);
                            uthread::yield_now();
                            assert_eq!(last_error(), Some(libc::ENOENT));
                            uthread::sleep(Duration::from_micros(100));
                        }
                    });
                }
            });
        });
    }

    #[test]
    fn stays_at_its_address() {
        among_several_workers(|| {
            // SAFETY: no preconditions.
            let address = || unsafe { libc::__errno_location() };
            let before = address();
            for _ in 0..10 {
                // SAFETY: the calling thread's errno is its own to write.
                migrate_after(|| unsafe { *before = libc::ELOOP });
                // SAFETY: as above.
                assert_eq!(unsafe { *before }, libc::ELOOP);
                assert_eq!(address(), before);
            }
        });
    }
}

mod initial_values {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::HashSet;

    thread_local! {
        static PLAIN: Cell<u64> = const { Cell::new(0x5eed) };
        static ZERO: Cell<[u64; 8]> = const { Cell::new([0; 8]) };
        static LAZY: RefCell<String> = RefCell::new("initial".to_owned());
    }

    fn look_and_change() -> usize {
        assert_eq!(PLAIN.replace(1), 0x5eed);
        assert_eq!(ZERO.replace([2; 8]), [0; 8]);
        assert_eq!(LAZY.replace("changed".to_owned()), "initial");
        PLAIN.with(|plain| std::ptr::from_ref(plain) as usize)
    }

    #[test]
    fn are_fresh_for_the_next_occupant_of_a_slot() {
        const THREADS: usize = 300;
        among_several_workers(|| {
            let one_by_one = |_| uthread::spawn(look_and_change).join().unwrap();
            let places: HashSet<usize> = (0..THREADS).map(one_by_one).collect();
            assert!(places.len() < THREADS, "no slot was used twice: nothing was tested");
        });
    }

    #[test]
    fn are_each_threads_own_while_many_live() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for i in 0..1000 {
                    s.spawn(move || {
                        look_and_change();
                        PLAIN.set(i);
                        uthread::yield_now();
                        assert_eq!(PLAIN.get(), i);
                    });
                }
            });
        });
    }
}

mod destructors {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    /// Does something when it is dropped.
    struct OnDrop(Option<Box<dyn FnOnce()>>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.take().expect("dropped twice")();
        }
    }

    thread_local! {
        static FIRST: RefCell<Option<OnDrop>> = const { RefCell::new(None) };
        static SECOND: RefCell<Option<OnDrop>> = const { RefCell::new(None) };
    }

    type Local = std::thread::LocalKey<RefCell<Option<OnDrop>>>;

    /// Has something done by the destructor of a thread-local; false if it is destroyed already.
    fn at_exit(local: &'static Local, action: impl FnOnce() + 'static) -> bool {
        let on_drop = OnDrop(Some(Box::new(action)));
        local.try_with(|slot| slot.replace(Some(on_drop)).map(std::mem::forget)).is_ok()
    }

    /// Runs `thread` on a thread like the caller's, and lists what it told when it had been joined.
    fn told_by(green: bool, thread: fn(mpsc::Sender<&'static str>)) -> Vec<&'static str> {
        let (teller, told) = mpsc::channel();
        if green {
            uthread::spawn(move || thread(teller)).join().unwrap();
        } else {
            std::thread::spawn(move || thread(teller)).join().unwrap();
        }
        told.try_iter().collect()
    }

    fn told_on_both(thread: fn(mpsc::Sender<&'static str>)) -> Vec<&'static str> {
        let expected = told_by(false, thread);
        let told = among_several_workers(|| told_by(true, thread));
        assert_eq!(told, expected, "(left: green thread, right: OS thread)");
        told
    }

    #[test]
    fn of_many_threads_run_once_each_before_join_returns() {
        const SPAWNERS: usize = 20;
        const WAVES: usize = 50;
        const WAVE: usize = 100;

        struct Count(Arc<AtomicU32>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        thread_local!(static OWN: RefCell<Option<Count>> = const { RefCell::new(None) });

        fn live(counts: Arc<AtomicU32>) {
            assert!(OWN.replace(Some(Count(counts))).is_none(), "another thread's value");
            uthread::yield_now();
            OWN.with_borrow(|own| assert_eq!(own.as_ref().unwrap().0.load(Relaxed), 0));
        }

        let threads = AtomicUsize::new(0);
        among_several_workers(|| {
            uthread::scope(|s| {
                for _ in 0..SPAWNERS {
                    s.spawn(|| {
                        for _ in 0..WAVES {
                            let counts: Vec<Arc<AtomicU32>> =
                                (0..WAVE).map(|_| Arc::default()).collect();
                            let wave: Vec<_> = counts
                                .iter()
                                .map(|count| {
                                    let count = count.clone();
                                    uthread::spawn(|| live(count))
                                })
                                .collect();
                            for (thread, count) in wave.into_iter().zip(&counts) {
                                thread.join().unwrap();
                                assert_eq!(count.load(Relaxed), 1, "destructions at join");
                            }
                            threads.fetch_add(WAVE, Relaxed);
                            assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
                        }
                    });
                }
            });
        });
        assert_eq!(threads.into_inner(), SPAWNERS * WAVES * WAVE);
    }

    #[test]
    fn run_on_their_own_thread() {
        among_several_workers(|| {
            let (teller, told) = mpsc::channel();
            let thread = uthread::spawn(move || {
                at_exit(&FIRST, move || teller.send(uthread::current().id()).unwrap());
                migrate();
            });
            let id = thread.thread().id();
            thread.join().unwrap();
            assert_eq!(told.try_iter().collect::<Vec<_>>(), [id]);
        });
    }

    #[test]
    fn run_in_the_order_of_std() {
        let told = told_on_both(|teller| {
            let other = teller.clone();
            at_exit(&FIRST, move || teller.send("first").unwrap());
            at_exit(&SECOND, move || other.send("second").unwrap());
        });
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn may_use_other_thread_locals_and_make_new_ones() {
        let told = told_on_both(|teller| {
            at_exit(&FIRST, move || {
                teller.send("first").unwrap();
                let other = teller.clone();
                if at_exit(&SECOND, move || other.send("made by the first's").unwrap()) {
                    teller.send("second was made").unwrap();
                }
            });
        });
        assert_eq!(told, ["first", "second was made", "made by the first's"]);
    }

    #[test]
    fn find_what_is_destroyed_already_inaccessible() {
        let told = told_on_both(|teller| {
            for local in [&FIRST, &SECOND] {
                let teller = teller.clone();
                at_exit(local, move || {
                    teller.send("destroyed").unwrap();
                    for other in [&FIRST, &SECOND] {
                        let access = other.try_with(|_| ());
                        teller.send(if access.is_ok() { "alive" } else { "gone" }).unwrap();
                    }
                });
            }
        });
        assert_eq!(told.iter().filter(|t| **t == "destroyed").count(), 2);
        assert!(told.contains(&"gone"), "{told:?}");
    }

    #[test]
    fn may_yield_sleep_and_park() {
        let told = told_on_both(|teller| {
            at_exit(&FIRST, move || {
                uthread::yield_now();
                teller.send("yielded").unwrap();
                uthread::sleep(Duration::from_millis(1));
                teller.send("slept").unwrap();
                uthread::current().unpark();
                uthread::park();
                teller.send("parked").unwrap();
            });
        });
        assert_eq!(told, ["yielded", "slept", "parked"]);
    }

    #[test]
    fn may_spawn_and_join() {
        let told = told_on_both(|teller| {
            at_exit(&FIRST, move || {
                let child = teller.clone();
                let grandchild = uthread::spawn(move || {
                    at_exit(&FIRST, move || child.send("the child's").unwrap());
                });
                grandchild.join().unwrap();
                teller.send("the parent's").unwrap();
            });
        });
        assert_eq!(told, ["the child's", "the parent's"]);
    }

    #[test]
    fn may_migrate() {
        among_several_workers(|| {
            for _ in 0..50 {
                let (teller, told) = mpsc::channel();
                let thread = uthread::spawn(move || {
                    at_exit(&SECOND, move || {
                        let here = SECOND.try_with(|_| ()).is_ok();
                        migrate();
                        assert_eq!(SECOND.try_with(|_| ()).is_ok(), here);
                        teller.send(()).unwrap();
                    });
                });
                thread.join().unwrap();
                assert_eq!(told.try_iter().count(), 1);
            }
        });
    }

    #[test]
    fn run_before_a_scope_ends() {
        among_several_workers(|| {
            let destroyed = Arc::new(AtomicU32::new(0));
            uthread::scope(|s| {
                for _ in 0..100 {
                    let destroyed = destroyed.clone();
                    s.spawn(|| {
                        at_exit(&FIRST, move || {
                            uthread::yield_now();
                            destroyed.fetch_add(1, Relaxed);
                        });
                    });
                }
            });
            assert_eq!(destroyed.load(Relaxed), 100);
        });
    }

    #[test]
    fn run_on_a_thread_that_panics() {
        let told = told_on_both(|teller| {
            at_exit(&FIRST, move || teller.send("destroyed").unwrap());
            let payload = Box::new(());
            let _unwound = std::panic::catch_unwind(|| std::panic::resume_unwind(payload));
        });
        assert_eq!(told, ["destroyed"]);

        let (teller, told) = mpsc::channel();
        let panicked = among_several_workers(|| {
            let thread = uthread::spawn(|| {
                at_exit(&FIRST, move || teller.send(()).unwrap());
                std::panic::resume_unwind(Box::new(()))
            });
            thread.join().is_err()
        });
        assert!(panicked);
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn that_panic_abort_the_process() {
        use std::os::unix::process::ExitStatusExt;

        let test = "destructors::that_panic_abort_the_process";
        let output = subprocess::in_child(test, &[], || {
            among_several_workers(|| {
                let thread = uthread::spawn(|| at_exit(&FIRST, || panic!("in a destructor")));
                thread.join().unwrap();
            });
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
        assert!(stderr.contains("thread local panicked on drop"), "{stderr}");
    }

    /// A result that uses a thread-local, with a destructor, when it is dropped.
    struct Result(mpsc::Sender<()>);

    impl Drop for Result {
        fn drop(&mut self) {
            let teller = self.0.clone();
            at_exit(&FIRST, move || teller.send(()).unwrap());
        }
    }

    #[test]
    fn of_what_a_detached_threads_result_used_run() {
        const THREADS: usize = 300;
        among_several_workers(|| {
            let (teller, told) = mpsc::channel();
            // The handles go before, while and after the threads end.
            let dropper = uthread::spawn(move || {
                for i in 0..THREADS {
                    let teller = teller.clone();
                    let thread = uthread::spawn(move || Result(teller));
                    match i % 3 {
                        0 => {}
                        1 => uthread::yield_now(),
                        _ => {
                            while !thread.is_finished() {
                                std::hint::spin_loop();
                                uthread::yield_now();
                            }
                        }
                    }
                    drop(thread);
                    // Of what this thread dropped, one value is destroyed when it ends.
                    drop(FIRST.take());
                }
            });
            dropper.join().unwrap();
            // The channel ends when the last result is gone.
            assert_eq!(told.iter().count(), THREADS);
        });
    }
}

mod pthread_keys {
    use super::*;
    use std::ffi::c_void;
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

    type Key = libc::pthread_key_t;
    type Destructor = unsafe extern "C" fn(*mut c_void);

    fn create(destructor: Option<Destructor>) -> Key {
        let mut key = 0;
        // SAFETY: the pointer is valid.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, destructor) }, 0);
        key
    }

    fn delete(key: Key) {
        // SAFETY: the key was created, and no destructor uses it any more.
        assert_eq!(unsafe { libc::pthread_key_delete(key) }, 0);
    }

    fn set<T>(key: Key, value: *const T) {
        // SAFETY: the key exists; what the value means is between the test and its destructor.
        assert_eq!(unsafe { libc::pthread_setspecific(key, value.cast()) }, 0);
    }

    fn get(key: Key) -> *mut c_void {
        // SAFETY: the key exists.
        unsafe { libc::pthread_getspecific(key) }
    }

    /// Counts itself in the value, which is a counter.
    unsafe extern "C" fn count(value: *mut c_void) {
        // SAFETY: tests that use this destructor set pointers to counters that live on.
        unsafe { &*value.cast::<AtomicUsize>() }.fetch_add(1, Relaxed);
    }

    /// Plays a scenario on threads one after the other, which use the same slots.
    fn on_consecutive_threads(scenario: impl Fn() + Sync) {
        among_several_workers(|| {
            for _ in 0..50 {
                uthread::scope(|s| s.spawn(&scenario).join().unwrap());
            }
        });
    }

    #[test]
    fn are_each_threads_own_and_destroyed_before_join_returns() {
        let key = create(Some(count));
        among_several_workers(|| {
            for _ in 0..20 {
                let counters: Vec<AtomicUsize> = (0..50).map(AtomicUsize::new).collect();
                uthread::scope(|s| {
                    for counter in &counters {
                        s.spawn(move || {
                            assert!(get(key).is_null());
                            set(key, counter);
                            uthread::yield_now();
                            assert_eq!(get(key), std::ptr::from_ref(counter).cast_mut().cast());
                        });
                    }
                });
                assert!(counters.into_iter().map(AtomicUsize::into_inner).eq(1..51));
            }
        });
        delete(key);
    }

    #[test]
    fn stay_with_their_thread_over_migrations() {
        let key = create(None);
        among_several_workers(|| {
            let value = AtomicUsize::new(0);
            set(key, &value);
            for _ in 0..10 {
                migrate();
                assert_eq!(get(key), std::ptr::from_ref(&value).cast_mut().cast());
            }
        });
        delete(key);
    }

    #[test]
    fn beyond_the_first_block_of_keys_are_destroyed_too() {
        // More than the 32 that fit into a thread's own structure.
        let keys: Vec<Key> = (0..200).map(|_| create(Some(count))).collect();
        let destroyed = AtomicUsize::new(0);
        on_consecutive_threads(|| {
            for key in &keys {
                assert!(get(*key).is_null());
                set(*key, &destroyed);
            }
            migrate();
        });
        assert_eq!(destroyed.into_inner(), 50 * keys.len());
        keys.into_iter().for_each(delete);
    }

    #[test]
    fn without_a_destructor_are_null_for_the_next_occupant() {
        let key = create(None);
        on_consecutive_threads(|| {
            assert!(get(key).is_null());
            set(key, &key);
        });
        delete(key);
    }

    #[test]
    fn of_a_deleted_key_are_not_destroyed() {
        let destroyed = AtomicUsize::new(0);
        on_consecutive_threads(|| {
            let key = create(Some(count));
            set(key, &destroyed);
            delete(key);
        });
        assert_eq!(destroyed.into_inner(), 0);
    }

    static STUBBORN: AtomicU32 = AtomicU32::new(0);
    static STUBBORN_ROUNDS: AtomicUsize = AtomicUsize::new(0);

    /// Always sets its value again.
    unsafe extern "C" fn insist(value: *mut c_void) {
        STUBBORN_ROUNDS.fetch_add(1, Relaxed);
        set(STUBBORN.load(Relaxed), value);
    }

    #[test]
    fn that_are_set_again_by_their_destructor_are_given_up_after_the_rounds_of_libc() {
        STUBBORN.store(create(Some(insist)), Relaxed);
        let thread = || set(STUBBORN.load(Relaxed), &STUBBORN);
        std::thread::spawn(thread).join().unwrap();
        let expected = STUBBORN_ROUNDS.swap(0, Relaxed);
        among_several_workers(|| uthread::spawn(thread).join().unwrap());
        assert_eq!(STUBBORN_ROUNDS.load(Relaxed), expected);
        on_consecutive_threads(|| {
            assert!(get(STUBBORN.load(Relaxed)).is_null(), "the last occupant's value");
            set(STUBBORN.load(Relaxed), &STUBBORN);
        });
    }

    static LATE: AtomicU32 = AtomicU32::new(0);

    unsafe extern "C" fn wait(value: *mut c_void) {
        migrate();
        let child = uthread::spawn(|| set(LATE.load(Relaxed), null::<()>()));
        child.join().unwrap();
        // SAFETY: as for `count`.
        unsafe { count(value) };
    }

    #[test]
    fn may_be_destroyed_by_a_destructor_that_waits() {
        LATE.store(create(Some(wait)), Relaxed);
        let destroyed = AtomicUsize::new(0);
        on_consecutive_threads(|| set(LATE.load(Relaxed), &destroyed));
        assert_eq!(destroyed.into_inner(), 50);
    }

    unsafe extern "C" {
        /// How compiled C++ and `std` register destructors of thread-locals.
        fn __cxa_thread_atexit_impl(
            destructor: Destructor,
            value: *mut c_void,
            module: *mut c_void,
        ) -> libc::c_int;
        static __dso_handle: u8;
    }

    /// A thread that registers a destructor when it is nearly over.
    struct Latecomer {
        id: std::sync::OnceLock<uthread::ThreadId>,
        strangers: AtomicUsize,
    }

    unsafe extern "C" fn register(value: *mut c_void) {
        // SAFETY: the function exists in glibc since 2.18; the value lives on.
        unsafe {
            __cxa_thread_atexit_impl(check, value, (&raw const __dso_handle).cast_mut().cast())
        };
    }

    unsafe extern "C" fn check(value: *mut c_void) {
        // SAFETY: the test sets pointers to `Latecomer`s that live on.
        let latecomer = unsafe { &*value.cast::<Latecomer>() };
        if latecomer.id.get() != Some(&uthread::current().id()) {
            latecomer.strangers.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn whose_destructor_registers_another_one_leave_nothing_to_the_next_occupant() {
        let key = create(Some(register));
        let latecomers: Vec<Latecomer> = (0..50)
            .map(|_| Latecomer { id: Default::default(), strangers: AtomicUsize::new(0) })
            .collect();
        let next = AtomicUsize::new(0);
        on_consecutive_threads(|| {
            let latecomer = &latecomers[next.fetch_add(1, Relaxed)];
            latecomer.id.set(uthread::current().id()).unwrap();
            set(key, latecomer);
        });
        let ran_elsewhere: usize = latecomers.iter().map(|l| l.strangers.load(Relaxed)).sum();
        assert_eq!(ran_elsewhere, 0, "destructors of one thread ran on another");
        delete(key);
    }

    #[test]
    fn can_be_set_to_null() {
        let key = create(Some(count));
        on_consecutive_threads(|| {
            set(key, &key);
            set(key, null_mut::<Key>());
        });
        delete(key);
    }
}

mod identity {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_each_threads_own_and_stay_over_migrations() {
        among_several_workers(|| {
            let ids = || (std::thread::current().id(), uthread::current().id());
            let mut all: Vec<_> = (0..500)
                .map(|_| uthread::spawn(ids))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            let before = ids();
            for _ in 0..10 {
                migrate();
                assert_eq!(ids(), before);
            }
            all.push(before);
            assert_eq!(all.iter().map(|ids| ids.0).collect::<HashSet<_>>().len(), all.len());
            assert_eq!(all.iter().map(|ids| ids.1).collect::<HashSet<_>>().len(), all.len());
        });
    }

    #[test]
    fn a_handle_and_the_thread_itself_agree_on_name_and_id() {
        among_several_workers(|| {
            let thread = uthread::Builder::new()
                .name("heron".to_owned())
                .spawn(|| {
                    migrate();
                    uthread::current()
                })
                .unwrap();
            let handle = thread.thread().clone();
            let own = thread.join().unwrap();
            assert_eq!((own.id(), own.name()), (handle.id(), Some("heron")));

            let unnamed = uthread::spawn(|| uthread::current().name().map(str::to_owned));
            assert_eq!(unnamed.join().unwrap(), None);
        });
    }

    #[test]
    fn os_threads_have_ids_and_names_too() {
        let os = std::thread::Builder::new().name("egret".to_owned());
        let os = os.spawn(|| (uthread::current().id(), uthread::current())).unwrap();
        let (id, thread) = os.join().unwrap();
        assert_eq!((thread.id(), thread.name()), (id, Some("egret")));
        assert_ne!(id, uthread::current().id());
    }
}

mod loaded_libraries {
    use super::*;
    use std::ffi::{CString, c_int};
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;
    use std::process::Command;

    const INITIAL: c_int = 7;

    /// A C library with one thread-local, compiled into a file that is removed at the end.
    struct Library(PathBuf);

    impl Library {
        /// `None` if there is no compiler.
        fn compile(name: &str, model: &str, initial: c_int) -> Option<Library> {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            let name = format!("{name}-{}", std::process::id());
            let (source, library) = (folder.join(name.clone() + ".c"), folder.join(name + ".so"));
            let text = format!(
                "__thread int counter = {initial};\n\
                 __thread char ballast[10000];\n\
                 int increment(void) {{ ballast[counter] = 1; return ++counter; }}\n"
            );
            let small = "__thread int counter = 7;\nint increment(void) { return ++counter; }\n";
            let is_dynamic = model == "global-dynamic";
            std::fs::write(&source, if is_dynamic { &text } else { small }).unwrap();
            let compiled = Command::new("gcc")
                .args(["-shared", "-fPIC", &format!("-ftls-model={model}"), "-o"])
                .args([&library, &source])
                .status();
            std::fs::remove_file(source).unwrap();
            match compiled {
                Ok(status) => assert!(status.success(), "gcc: {status}"),
                Err(e) => {
                    println!("skipped: gcc cannot be run: {e}");
                    return None;
                }
            }
            Some(Library(library))
        }

        fn load(&self) -> Loaded {
            let path = CString::new(self.0.as_os_str().as_bytes()).unwrap();
            // SAFETY: the library has no constructors.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!handle.is_null());
            // SAFETY: the library is loaded and has a function of that name and type.
            let increment = unsafe {
                std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> c_int>(libc::dlsym(
                    handle,
                    c"increment".as_ptr(),
                ))
            };
            Loaded { increment, handle: handle as usize }
        }
    }

    impl Drop for Library {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[derive(Clone, Copy)]
    struct Loaded {
        /// Increments the calling thread's counter.
        increment: extern "C" fn() -> c_int,
        handle: usize,
    }

    impl Loaded {
        fn unload(self) {
            // SAFETY: it is loaded, and nobody calls into it any more.
            assert_eq!(unsafe { libc::dlclose(self.handle as *mut libc::c_void) }, 0);
        }

        fn count_from(self, initial: c_int, rounds: c_int, switch: fn()) {
            for round in 1..=rounds {
                assert_eq!((self.increment)(), initial + round);
                switch();
            }
        }
    }

    #[test]
    fn give_each_thread_and_each_occupant_initial_values() {
        let Some(library) = Library::compile("dynamic", "global-dynamic", INITIAL) else { return };
        among_several_workers(|| {
            uthread::spawn(|| ()).join().unwrap();
            let loaded = library.load();
            loaded.count_from(INITIAL, 10, migrate);
            for _ in 0..5 {
                uthread::scope(|s| {
                    for _ in 0..WORKERS - 1 {
                        s.spawn(move || loaded.count_from(INITIAL, 10, migrate));
                    }
                    for _ in 0..100 {
                        s.spawn(move || loaded.count_from(INITIAL, 20, uthread::yield_now));
                    }
                });
            }
        });
    }

    #[test]
    fn that_replace_unloaded_ones_have_their_own_values() {
        among_several_workers(|| {
            for round in 0..6 {
                let initial = INITIAL + 100 * round;
                let name = format!("successor-{round}");
                let Some(library) = Library::compile(&name, "global-dynamic", initial) else {
                    return;
                };
                let loaded = library.load();
                uthread::scope(|s| {
                    for _ in 0..20 {
                        s.spawn(move || loaded.count_from(initial, 3, uthread::yield_now));
                    }
                });
                loaded.unload();
            }
        });
    }

    #[test]
    fn with_static_thread_locals_work_if_loaded_before_the_first_thread() {
        let test =
            "loaded_libraries::with_static_thread_locals_work_if_loaded_before_the_first_thread";
        let output = subprocess::in_child(test, &[], || {
            let Some(library) = Library::compile("early", "initial-exec", INITIAL) else { return };
            let loaded = library.load();
            among_several_workers(|| {
                for _ in 0..5 {
                    uthread::scope(|s| {
                        for _ in 0..50 {
                            s.spawn(move || loaded.count_from(INITIAL, 3, uthread::yield_now));
                        }
                    });
                }
                loaded.count_from(INITIAL, 5, migrate);
            });
        });
        assert!(output.status.success(), "{output:?}");
    }

    /// Spawns, loads, spawns again. That a slot at hand is used up to then is what the documentation
    /// admits; a worker has at most 128.
    fn spawn_after_loading_a_static_one(load: fn(&Library) -> Loaded, stack_size: Option<usize>) {
        let Some(library) = Library::compile("late", "initial-exec", INITIAL) else { return };
        among_several_workers(|| {
            for _ in 0..10 {
                uthread::spawn(|| ()).join().unwrap();
            }
            load(&library);
            let spawn = || {
                let builder = uthread::Builder::new();
                match stack_size {
                    Some(size) => builder.stack_size(size).spawn(uthread::park),
                    None => builder.spawn(uthread::park),
                }
            };
            let at_hand: Vec<_> = std::iter::from_fn(|| spawn().ok()).take(129).collect();
            assert!(at_hand.len() <= 128, "spawned without that library's TLS");
            for _ in 0..10 {
                let error = spawn().expect_err("spawned without that library's TLS");
                let message = error.to_string();
                assert!(message.contains("static thread-local storage"), "{message}");
            }
            for thread in at_hand {
                thread.thread().unpark();
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn with_static_thread_locals_make_spawning_on_a_new_stack_fail() {
        let test = "loaded_libraries::with_static_thread_locals_make_spawning_on_a_new_stack_fail";
        let output = subprocess::in_child(test, &[], || {
            let on_an_os_thread = |library: &Library| {
                std::thread::scope(|s| s.spawn(|| library.load()).join().unwrap())
            };
            spawn_after_loading_a_static_one(on_an_os_thread, Some(4 << 20));
        });
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn with_static_thread_locals_make_spawning_on_a_pooled_stack_fail() {
        let test =
            "loaded_libraries::with_static_thread_locals_make_spawning_on_a_pooled_stack_fail";
        let output = subprocess::in_child(test, &[], || {
            spawn_after_loading_a_static_one(Library::load, None);
        });
        assert!(output.status.success(), "{output:?}");
    }
}
