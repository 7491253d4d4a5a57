//! What libc and the processor keep per thread is the green thread's own.

#[path = "common/migration.rs"]
mod migration;
#[path = "common/subprocess.rs"]
mod subprocess;

use std::ffi::{CStr, c_int};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use migration::{WORKERS, among_several_workers, migrate};

/// Runs `body` in many threads at once that switch, and in a few that migrate.
fn switching_and_migrating(body: impl Fn(usize, &dyn Fn()) + Sync) {
    const THREADS: usize = 64;
    among_several_workers(|| {
        uthread::scope(|s| {
            let body = &body;
            for i in 0..WORKERS - 1 {
                s.spawn(move || body(i, &migrate));
            }
            for i in WORKERS - 1..THREADS / 2 {
                s.spawn(move || body(i, &uthread::yield_now));
            }
            for i in THREADS / 2..THREADS {
                s.spawn(move || body(i, &|| uthread::sleep(Duration::from_micros(100))));
            }
        });
    });
}

/// Runs `first` and then `second` on threads one after the other, which use the same slots.
fn on_consecutive_threads(first: fn(), second: fn()) {
    among_several_workers(|| {
        for _ in 0..50 {
            uthread::spawn(first).join().unwrap();
            uthread::spawn(second).join().unwrap();
        }
    });
}

mod stdio {
    use super::*;
    use std::io::Write;

    /// Lines that scenarios print between marks, in which the harness prints nothing.
    fn printed(output: &std::process::Output) -> Vec<String> {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        text.lines().filter(|l| l.starts_with("thread ")).map(str::to_owned).collect()
    }

    #[test]
    fn println_from_a_thousand_threads_prints_whole_lines() {
        const THREADS: usize = 1000;
        let test = "stdio::println_from_a_thousand_threads_prints_whole_lines";
        let output = subprocess::in_child(test, &[], || {
            among_several_workers(|| {
                uthread::scope(|s| {
                    for i in 0..THREADS {
                        s.spawn(move || {
                            println!("thread {i:04} begins");
                            uthread::yield_now();
                            println!("thread {i:04} ends");
                        });
                    }
                });
            });
        });
        let mut lines = printed(&output);
        lines.sort_unstable();
        let expected = (0..THREADS)
            .flat_map(|i| [format!("thread {i:04} begins"), format!("thread {i:04} ends")]);
        assert!(lines.into_iter().eq(expected));
    }

    #[test]
    fn a_lock_held_over_migrations_is_reentrant_and_keeps_others_out() {
        const LINES: usize = 20;
        let test = "stdio::a_lock_held_over_migrations_is_reentrant_and_keeps_others_out";
        let output = subprocess::in_child(test, &[], || {
            let held = AtomicBool::new(false);
            let held = &held;
            among_several_workers(|| {
                uthread::scope(|s| {
                    s.spawn(move || {
                        let mut stdout = std::io::stdout().lock();
                        held.store(true, Relaxed);
                        for i in 0..LINES {
                            migrate();
                            writeln!(stdout, "thread 1, {i:02}").unwrap();
                            uthread::yield_now();
                            println!("thread 1, {i:02} again");
                        }
                    });
                    // One may block its worker in the kernel.
                    s.spawn(move || {
                        while !held.load(Relaxed) {
                            uthread::yield_now();
                        }
                        println!("thread 2");
                    });
                    std::thread::scope(|os| {
                        os.spawn(move || {
                            while !held.load(Relaxed) {
                                std::thread::yield_now();
                            }
                            println!("thread 3");
                        });
                    });
                });
            });
        });
        let mut lines = printed(&output);
        let others = lines.split_off(2 * LINES);
        let expected = (0..LINES)
            .flat_map(|i| [format!("thread 1, {i:02}"), format!("thread 1, {i:02} again")]);
        assert!(lines.iter().cloned().eq(expected), "{lines:?}");
        assert!(others == ["thread 2", "thread 3"] || others == ["thread 3", "thread 2"]);
    }

    unsafe extern "C" {
        fn flockfile(file: *mut libc::FILE);
        fn ftrylockfile(file: *mut libc::FILE) -> c_int;
        fn funlockfile(file: *mut libc::FILE);
    }

    struct File(*mut libc::FILE);

    // SAFETY: stdio's functions lock the file.
    unsafe impl Sync for File {}
    // SAFETY: files belong to no thread.
    unsafe impl Send for File {}

    impl File {
        fn temporary() -> File {
            // SAFETY: no preconditions.
            let file = unsafe { libc::tmpfile() };
            assert!(!file.is_null());
            File(file)
        }

        fn put(&self, text: &CStr) {
            // SAFETY: the file is open.
            assert!(unsafe { libc::fputs(text.as_ptr(), self.0) } >= 0);
        }

        fn contents(&self) -> String {
            let mut contents = String::new();
            // SAFETY: the file is open.
            unsafe {
                libc::rewind(self.0);
                while let Ok(byte) = u8::try_from(libc::fgetc(self.0)) {
                    contents.push(byte.into());
                }
            }
            contents
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            // SAFETY: the file is open.
            unsafe { libc::fclose(self.0) };
        }
    }

    #[test]
    fn c_files_have_recursive_locks_that_stay_with_their_thread() {
        let file = File::temporary();
        switching_and_migrating(|i, switch| {
            let name = c"abcdefghijklmnopqrstuvwxyz".to_bytes()[i % 26];
            let text = [name, 0];
            let text = CStr::from_bytes_with_nul(&text).unwrap();
            // To wait in `flockfile` would block the worker in the kernel; to yield would keep workers
            // busy, of which one that migrates needs an idle one.
            // SAFETY: the file is open.
            while unsafe { ftrylockfile(file.0) } != 0 {
                uthread::sleep(Duration::from_micros(100));
            }
            for _ in 0..3 {
                switch();
                file.put(text);
                // SAFETY: the file is open; this thread has locked it.
                unsafe { flockfile(file.0) };
                switch();
                file.put(text);
                // SAFETY: as above.
                unsafe { funlockfile(file.0) };
            }
            // SAFETY: as above.
            unsafe { funlockfile(file.0) };
        });
        let contents = file.contents();
        assert_eq!(contents.len(), 64 * 6);
        for six in contents.as_bytes().chunks(6) {
            assert!(six.iter().all(|c| *c == six[0]), "another thread wrote amid: {contents}");
        }
    }
}

mod text {
    use super::*;
    use std::net::ToSocketAddrs;

    unsafe extern "C" {
        fn toupper(c: c_int) -> c_int;
        fn __ctype_get_mb_cur_max() -> usize;
    }

    #[test]
    fn names_are_resolved_in_many_threads_at_once() {
        switching_and_migrating(|_, switch| {
            switch();
            let mut addresses = ("localhost", 80).to_socket_addrs().unwrap();
            switch();
            assert!(addresses.all(|a| a.ip().is_loopback() && a.port() == 80));
        });
    }

    #[test]
    fn times_are_formatted() {
        switching_and_migrating(|i, switch| {
            let time = i as libc::time_t * 86_400;
            let mut buffer = [0; 64];
            // SAFETY: all pointers are valid for the calls' purposes.
            let mut broken_down = unsafe {
                let mut broken_down = std::mem::zeroed::<libc::tm>();
                assert!(!libc::gmtime_r(&time, &mut broken_down).is_null());
                switch();
                let mut local = std::mem::zeroed::<libc::tm>();
                assert!(!libc::localtime_r(&time, &mut local).is_null());
                assert_eq!(libc::mktime(&mut local), time);
                broken_down
            };
            switch();
            broken_down.tm_hour = 12;
            // SAFETY: as above.
            let length = unsafe {
                let format = c"%A %d %B %Y %H".as_ptr();
                libc::strftime(buffer.as_mut_ptr(), buffer.len(), format, &broken_down)
            };
            // SAFETY: strftime terminates what it wrote.
            let text = unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_str().unwrap();
            assert_eq!(text.len(), length);
            assert!(text.contains("day ") && text.ends_with("1970 12"), "{text}");
        });
    }

    #[test]
    fn characters_are_classified() {
        switching_and_migrating(|_, switch| {
            for _ in 0..3 {
                for c in 0..=127_u8 {
                    // SAFETY: defined for all values of unsigned char.
                    let (letter, digit, upper) = unsafe {
                        let c = c.into();
                        (libc::isalpha(c), libc::isdigit(c), toupper(c))
                    };
                    assert_eq!(letter != 0, c.is_ascii_alphabetic());
                    assert_eq!(digit != 0, c.is_ascii_digit());
                    assert_eq!(upper, libc::c_int::from(c.to_ascii_uppercase()));
                }
                switch();
            }
        });
    }

    /// The calling thread's locale if it has one of its own, or else the process's.
    fn locale() -> libc::locale_t {
        // SAFETY: null asks without changing.
        unsafe { libc::uselocale(std::ptr::null_mut()) }
    }

    fn process_locale() -> libc::locale_t {
        std::thread::spawn(|| locale() as usize).join().unwrap() as libc::locale_t
    }

    fn longest_character() -> usize {
        // SAFETY: no preconditions.
        unsafe { __ctype_get_mb_cur_max() }
    }

    #[test]
    fn a_locale_is_kept_over_migrations_and_not_handed_to_the_next_occupant() {
        on_consecutive_threads(
            || {
                // SAFETY: the name is a C string; the locale is freed by nobody.
                let utf8 = unsafe {
                    libc::newlocale(libc::LC_ALL_MASK, c"C.UTF-8".as_ptr(), std::ptr::null_mut())
                };
                if utf8.is_null() {
                    return println!("skipped: there is no locale C.UTF-8");
                }
                // SAFETY: it is a locale.
                assert_eq!(unsafe { libc::uselocale(utf8) }, process_locale());
                for _ in 0..3 {
                    migrate();
                    assert_eq!(locale(), utf8);
                    assert_eq!(longest_character(), 6);
                }
            },
            || {
                assert_eq!(locale(), process_locale());
                assert_eq!(longest_character(), 1);
                migrate();
                assert_eq!(locale(), process_locale());
            },
        );
    }

    #[test]
    fn error_messages_are_each_threads_own() {
        switching_and_migrating(|i, switch| {
            let number = 10_000 + i as c_int;
            // SAFETY: the text is the thread's until its next call.
            let message: &CStr = unsafe { CStr::from_ptr(libc::strerror(number)) };
            for _ in 0..5 {
                switch();
                let expected = format!("Unknown error {number}");
                assert_eq!(message.to_str().unwrap(), expected);
            }
        });
    }
}

mod callbacks_and_memory {
    use super::*;
    use std::ffi::c_void;

    #[test]
    fn qsort_may_switch_in_its_comparison() {
        unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
            // SAFETY: qsort passes pointers to elements.
            let (a, b) = unsafe { (*a.cast::<u32>(), *b.cast::<u32>()) };
            uthread::yield_now();
            if a == b / 2 {
                uthread::sleep(Duration::from_micros(10));
            }
            a.cmp(&b) as c_int
        }
        among_several_workers(|| {
            uthread::scope(|s| {
                for seed in 0..20_u32 {
                    s.spawn(move || {
                        let mut numbers: Vec<u32> =
                            (0..200).map(|i: u32| (i + seed).wrapping_mul(2_654_435_761)).collect();
                        let mut expected = numbers.clone();
                        expected.sort_unstable();
                        // SAFETY: the array has that many elements of that size.
                        unsafe {
                            let array = numbers.as_mut_ptr().cast();
                            libc::qsort(array, numbers.len(), size_of::<u32>(), Some(compare));
                        }
                        assert_eq!(numbers, expected);
                    });
                }
            });
        });
    }

    /// Memory that knows what was written into it.
    struct Block(Vec<u8>);

    impl Block {
        fn new(seed: usize) -> Block {
            let length = [1, 24, 100, 1000, 5000, 200_000][seed % 6] + seed % 17;
            Block(vec![seed as u8; length])
        }

        fn check(&self, seed: usize) {
            assert!(self.0.iter().all(|byte| *byte == seed as u8));
        }
    }

    #[test]
    fn memory_may_be_freed_by_another_thread_than_allocated_it() {
        const ROUNDS: usize = 10_000;
        let shelves: Vec<Mutex<Option<(usize, Block)>>> =
            (0..31).map(|_| Mutex::default()).collect();
        let rounds = AtomicUsize::new(0);
        switching_and_migrating(|_, switch| {
            for turn in 0.. {
                let seed = rounds.fetch_add(1, Relaxed);
                if seed >= ROUNDS {
                    break;
                }
                let shelf = &shelves[seed % shelves.len()];
                let other = shelf.lock().unwrap().replace((seed, Block::new(seed)));
                if turn % 16 == 0 {
                    switch();
                }
                if let Some((seed, block)) = other {
                    block.check(seed);
                }
            }
        });
        assert!(rounds.into_inner() >= ROUNDS);
    }

    #[test]
    fn memory_is_the_threads_over_migrations() {
        among_several_workers(|| {
            let mut blocks: Vec<Block> = Vec::new();
            for seed in 0..200 {
                blocks.push(Block::new(seed));
                migrate();
                if seed % 3 == 0 {
                    blocks.remove(0);
                }
            }
            for (block, seed) in blocks.iter().rev().zip((0..200).rev()) {
                block.check(seed);
            }
        });
    }
}

mod floating_point {
    use super::*;
    use std::hint::black_box;

    #[link(name = "m")]
    unsafe extern "C" {
        fn fegetround() -> c_int;
        fn fesetround(mode: c_int) -> c_int;
        fn feenableexcept(exceptions: c_int) -> c_int;
        fn fedisableexcept(exceptions: c_int) -> c_int;
        fn fegetexcept() -> c_int;
        fn rint(x: f64) -> f64;
    }

    /// Modes of `<fenv.h>`: to nearest, downwards, upwards, towards zero; and division by zero.
    #[cfg(target_arch = "x86_64")]
    const MODES: [c_int; 4] = [0, 0x400, 0x800, 0xc00];
    #[cfg(target_arch = "aarch64")]
    const MODES: [c_int; 4] = [0, 0x80_0000, 0x40_0000, 0xc0_0000];
    #[cfg(target_arch = "x86_64")]
    const DIVISION_BY_ZERO: c_int = 4;
    #[cfg(target_arch = "aarch64")]
    const DIVISION_BY_ZERO: c_int = 2;

    const NEAREST: c_int = MODES[0];
    const UPWARDS: c_int = MODES[2];

    fn set_mode(mode: c_int) {
        // SAFETY: it is one of the modes. The threads of these tests compute in no other way than in
        // libm, and set the mode back before they end.
        assert_eq!(unsafe { fesetround(mode) }, 0);
    }

    /// In x86-64's libm, this is the x87 unit's.
    fn mode() -> c_int {
        // SAFETY: no preconditions.
        unsafe { fegetround() }
    }

    /// The mode that computations follow; on x86-64 the vector unit's.
    fn mode_observed() -> c_int {
        // SAFETY: no preconditions.
        let rounded =
            unsafe { [rint(black_box(1.5)), rint(black_box(0.5)), rint(black_box(-0.5))] };
        match rounded.map(|x| x as i32) {
            [2, 0, 0] => MODES[0],
            [1, 0, -1] => MODES[1],
            [2, 1, 0] => MODES[2],
            [1, 0, 0] => MODES[3],
            other => panic!("no mode rounds so: {other:?}"),
        }
    }

    fn modes() -> (c_int, c_int) {
        (mode(), mode_observed())
    }

    #[test]
    fn rounding_modes_are_each_threads_own() {
        switching_and_migrating(|i, switch| {
            let own = MODES[i % MODES.len()];
            set_mode(own);
            for _ in 0..20 {
                switch();
                assert_eq!(modes(), (own, own));
            }
            set_mode(NEAREST);
        });
    }

    #[test]
    fn rounding_modes_are_kept_over_every_kind_of_wait() {
        among_several_workers(|| {
            set_mode(UPWARDS);
            let neighbour = uthread::spawn(|| {
                set_mode(MODES[1]);
                uthread::yield_now();
                assert_eq!(modes(), (MODES[1], MODES[1]));
                set_mode(NEAREST);
            });
            uthread::sleep(Duration::from_micros(100));
            assert_eq!(modes(), (UPWARDS, UPWARDS));
            neighbour.join().unwrap();
            assert_eq!(modes(), (UPWARDS, UPWARDS));
            uthread::park_timeout(Duration::from_micros(100));
            assert_eq!(modes(), (UPWARDS, UPWARDS));
            set_mode(NEAREST);
        });
    }

    #[test]
    fn a_new_thread_inherits_the_mode_of_its_parent_as_an_os_thread_does() {
        for mode in MODES {
            let child = || {
                let inherited = modes();
                set_mode(NEAREST);
                inherited
            };
            let by_os_thread = std::thread::spawn(move || {
                set_mode(mode);
                let inherited = std::thread::spawn(child).join().unwrap();
                set_mode(NEAREST);
                inherited
            });
            assert_eq!(by_os_thread.join().unwrap(), (mode, mode));
            among_several_workers(|| {
                set_mode(mode);
                let inherited = uthread::spawn(child).join().unwrap();
                set_mode(NEAREST);
                assert_eq!(inherited, (mode, mode));
            });
        }
    }

    #[test]
    fn a_mode_is_not_handed_to_the_next_occupant() {
        on_consecutive_threads(|| set_mode(UPWARDS), || assert_eq!(modes(), (NEAREST, NEAREST)));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn exception_masks_are_each_threads_own() {
        among_several_workers(|| {
            // SAFETY: nothing divides by zero while that would trap.
            unsafe { feenableexcept(DIVISION_BY_ZERO) };
            for _ in 0..5 {
                migrate();
                // SAFETY: no preconditions.
                assert_eq!(unsafe { fegetexcept() }, DIVISION_BY_ZERO);
            }
            // SAFETY: as above.
            unsafe { fedisableexcept(DIVISION_BY_ZERO) };
        });
    }
}

mod threads {
    use super::*;
    use std::collections::HashSet;

    fn own() -> libc::pthread_t {
        // SAFETY: no preconditions.
        unsafe { libc::pthread_self() }
    }

    #[test]
    fn pthread_self_tells_live_threads_apart_and_stays() {
        const THREADS: usize = 300;
        among_several_workers(|| {
            let started = AtomicUsize::new(0);
            let threads: HashSet<libc::pthread_t> = uthread::scope(|s| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|_| {
                        s.spawn(|| {
                            started.fetch_add(1, Relaxed);
                            while started.load(Relaxed) < THREADS {
                                uthread::yield_now();
                            }
                            own()
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(threads.len(), THREADS);
            let before = own();
            assert!(!threads.contains(&before));
            for _ in 0..5 {
                migrate();
                assert_eq!(own(), before);
            }
        });
    }

    /// A mutex of libc's that checks or counts its owner's locks.
    struct Mutex(Box<std::cell::UnsafeCell<libc::pthread_mutex_t>>);

    // SAFETY: it is a mutex.
    unsafe impl Sync for Mutex {}

    impl Mutex {
        fn of_kind(kind: c_int) -> Mutex {
            // SAFETY: the calls follow pthread_mutexattr_settype(3p); the mutex does not move.
            unsafe {
                let mut attributes = std::mem::zeroed::<libc::pthread_mutexattr_t>();
                assert_eq!(libc::pthread_mutexattr_init(&mut attributes), 0);
                assert_eq!(libc::pthread_mutexattr_settype(&mut attributes, kind), 0);
                let mutex = Mutex(Box::new(std::mem::zeroed::<libc::pthread_mutex_t>().into()));
                assert_eq!(libc::pthread_mutex_init(mutex.0.get(), &attributes), 0);
                mutex
            }
        }

        fn lock(&self) -> c_int {
            // SAFETY: the mutex is initialised.
            unsafe { libc::pthread_mutex_lock(self.0.get()) }
        }

        fn try_lock(&self) -> c_int {
            // SAFETY: the mutex is initialised.
            unsafe { libc::pthread_mutex_trylock(self.0.get()) }
        }

        fn unlock(&self) -> c_int {
            // SAFETY: the mutex is initialised, and of a kind that checks its owner.
            unsafe { libc::pthread_mutex_unlock(self.0.get()) }
        }
    }

    fn assert_not_owned_by_others(mutex: &Mutex) {
        uthread::scope(|s| {
            for _ in 0..10 {
                s.spawn(|| {
                    assert_eq!(mutex.try_lock(), libc::EBUSY);
                    assert_eq!(mutex.unlock(), libc::EPERM);
                });
            }
        });
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(mutex.try_lock(), libc::EBUSY));
        });
    }

    #[test]
    fn recursive_mutexes_are_owned_by_green_threads() {
        among_several_workers(|| {
            let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_RECURSIVE);
            for _ in 0..5 {
                assert_eq!(mutex.lock(), 0);
                migrate();
                assert_not_owned_by_others(&mutex);
            }
            for _ in 0..5 {
                assert_not_owned_by_others(&mutex);
                migrate();
                assert_eq!(mutex.unlock(), 0);
            }
            assert_eq!(mutex.unlock(), libc::EPERM);
            uthread::scope(|s| {
                s.spawn(|| assert_eq!((mutex.try_lock(), mutex.unlock()), (0, 0)));
            });
        });
    }

    #[test]
    fn error_checking_mutexes_are_owned_by_green_threads() {
        among_several_workers(|| {
            let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_ERRORCHECK);
            assert_eq!(mutex.lock(), 0);
            migrate();
            assert_eq!(mutex.lock(), libc::EDEADLK);
            assert_not_owned_by_others(&mutex);
            migrate();
            assert_eq!(mutex.unlock(), 0);
            assert_eq!(mutex.unlock(), libc::EPERM);
        });
    }
}

mod processes {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_forked_child_has_the_calling_thread_and_exits() {
        among_several_workers(|| {
            for round in 0..20 {
                let local = round;
                // SAFETY: the child calls async-signal-safe functions only.
                let child = unsafe { libc::fork() };
                assert!(child >= 0);
                if child == 0 {
                    // SAFETY: as above.
                    unsafe {
                        let alone = libc::getpid() == libc::gettid();
                        libc::_exit(if alone { local } else { 255 });
                    }
                }
                migrate();
                let mut status = 0;
                // SAFETY: the pointer is valid.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert!(libc::WIFEXITED(status));
                assert_eq!(libc::WEXITSTATUS(status), round);
            }
        });
    }

    #[test]
    fn commands_run_from_green_threads() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for i in 0..20 {
                    s.spawn(move || {
                        let echo = Command::new("echo").arg(i.to_string()).output().unwrap();
                        assert_eq!(String::from_utf8(echo.stdout).unwrap(), format!("{i}\n"));
                        let missing = Command::new("/no such program").stdin(Stdio::null()).spawn();
                        assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENOENT));
                    });
                }
            });
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            migrate();
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        });
    }
}
