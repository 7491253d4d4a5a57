//! The C library's locks, as C uses them: on green threads, on OS threads, and between both.
//!
//! Where the crate's own functions are called, waiting takes no helper; elsewhere the monitor moves who waits. The
//! results are the same.

#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libc::{clockid_t, timespec};
use uthread::Runtime;
use watchdog::watched;

unsafe extern "C" {
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
    fn pthread_cond_clockwait(
        condition: *mut libc::pthread_cond_t,
        mutex: *mut libc::pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
    fn sem_clockwait(semaphore: *mut libc::sem_t, clock: clockid_t, time: *const timespec)
    -> c_int;
    fn pthread_rwlock_timedrdlock(l: *mut libc::pthread_rwlock_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(l: *mut libc::pthread_rwlock_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_clockrdlock(
        lock: *mut libc::pthread_rwlock_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_clockwrlock(
        lock: *mut libc::pthread_rwlock_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
}

/// One of the C library's variables, for several threads.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only the C library's functions use what is in it, which are for several threads.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(value: T) -> Shared<T> {
        Shared(UnsafeCell::new(value))
    }

    fn at(&self) -> *mut T {
        self.0.get()
    }
}

type Mutex = Shared<libc::pthread_mutex_t>;
type Condition = Shared<libc::pthread_cond_t>;
type Semaphore = Shared<libc::sem_t>;
type RwLock = Shared<libc::pthread_rwlock_t>;

impl Mutex {
    fn plain() -> Mutex {
        Shared::new(libc::PTHREAD_MUTEX_INITIALIZER)
    }

    fn with(set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) -> Mutex {
        let mutex = Mutex::plain();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the attributes are made before they are used; the mutex is made at its place, and not moved locked.
        unsafe {
            assert_eq!(libc::pthread_mutexattr_init(attributes.as_mut_ptr()), 0);
            assert_eq!(set(attributes.as_mut_ptr()), 0);
            assert_eq!(libc::pthread_mutex_init(mutex.at(), attributes.as_ptr()), 0);
        }
        mutex
    }

    fn of_type(kind: c_int) -> Mutex {
        // SAFETY: the attributes are valid.
        Mutex::with(|a| unsafe { libc::pthread_mutexattr_settype(a, kind) })
    }

    fn robust() -> Mutex {
        // SAFETY: the attributes are valid.
        Mutex::with(|a| unsafe { libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST) })
    }

    fn of_processes() -> Mutex {
        // SAFETY: the attributes are valid.
        Mutex::with(|a| unsafe {
            libc::pthread_mutexattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED)
        })
    }

    fn inheriting() -> Mutex {
        // SAFETY: the attributes are valid.
        Mutex::with(|a| unsafe {
            libc::pthread_mutexattr_setprotocol(a, libc::PTHREAD_PRIO_INHERIT)
        })
    }

    fn lock(&self) -> c_int {
        // SAFETY: it is a mutex, here and below.
        unsafe { libc::pthread_mutex_lock(self.at()) }
    }

    fn try_lock(&self) -> c_int {
        // SAFETY: see `lock`.
        unsafe { libc::pthread_mutex_trylock(self.at()) }
    }

    fn unlock(&self) -> c_int {
        // SAFETY: see `lock`.
        unsafe { libc::pthread_mutex_unlock(self.at()) }
    }
}

impl Condition {
    fn plain() -> Condition {
        Shared::new(libc::PTHREAD_COND_INITIALIZER)
    }

    fn with(set: impl FnOnce(*mut libc::pthread_condattr_t) -> c_int) -> Condition {
        let condition = Condition::plain();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the attributes are made before they are used; nobody waits yet.
        unsafe {
            assert_eq!(libc::pthread_condattr_init(attributes.as_mut_ptr()), 0);
            assert_eq!(set(attributes.as_mut_ptr()), 0);
            assert_eq!(libc::pthread_cond_init(condition.at(), attributes.as_ptr()), 0);
        }
        condition
    }

    fn wait(&self, mutex: &Mutex) {
        // SAFETY: both are what they are said to be, here and below.
        assert_eq!(unsafe { libc::pthread_cond_wait(self.at(), mutex.at()) }, 0);
    }

    fn signal(&self) {
        // SAFETY: see `wait`.
        assert_eq!(unsafe { libc::pthread_cond_signal(self.at()) }, 0);
    }

    fn broadcast(&self) {
        // SAFETY: see `wait`.
        assert_eq!(unsafe { libc::pthread_cond_broadcast(self.at()) }, 0);
    }
}

fn semaphore(shared: bool, value: u32) -> Semaphore {
    // SAFETY: zeroes are a value of the type, which is made a semaphore.
    unsafe {
        let semaphore = Shared::new(std::mem::zeroed());
        assert_eq!(libc::sem_init(semaphore.at(), shared.into(), value), 0);
        semaphore
    }
}

impl Semaphore {
    fn wait(&self) {
        // SAFETY: it is a semaphore.
        assert_eq!(unsafe { libc::sem_wait(self.at()) }, 0);
    }

    fn post(&self) {
        // SAFETY: it is a semaphore.
        assert_eq!(unsafe { libc::sem_post(self.at()) }, 0);
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

/// The same on an OS thread and on green ones.
fn everywhere(scenario: impl Fn() + Sync) {
    std::thread::scope(|s| {
        s.spawn(&scenario);
    });
    for workers in [1, 2] {
        let runtime = runtime(workers);
        watched(&runtime, || runtime.run(&scenario));
    }
}

/// Whether waiting for locks takes no helper: the functions are the crate's, and the kernel has the operation.
fn parks() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    uthread::interposed() && version >= (6, 7)
}

/// Plays a scenario in which many threads wait: nobody is moved to a helper for that.
fn without_helpers(workers: usize, scenario: impl Fn() + Sync) {
    let runtime = Runtime::builder().workers(workers).helpers(2).build().unwrap();
    watched(&runtime, || runtime.run(&scenario));
    let stats = runtime.stats();
    assert!(!parks() || stats.blocking_calls == 0, "{stats}");
}

/// Computes, or lets others run, while a lock is held.
fn dawdle(i: usize) {
    if i.is_multiple_of(8) {
        uthread::yield_now();
    }
}

// Mutexes

#[test]
fn who_locks_a_mutex_that_checks_twice_is_told_of_the_deadlock() {
    everywhere(|| {
        let mutex = Mutex::of_type(libc::PTHREAD_MUTEX_ERRORCHECK);
        assert_eq!(mutex.unlock(), libc::EPERM);
        assert_eq!(mutex.lock(), 0);
        assert_eq!(mutex.lock(), libc::EDEADLK);
        let time = far();
        // SAFETY: mutex and time are valid.
        let timed = unsafe { libc::pthread_mutex_timedlock(mutex.at(), &time) };
        assert_eq!(timed, libc::EDEADLK);
        assert_eq!(mutex.try_lock(), libc::EBUSY);
        uthread::scope(|s| {
            s.spawn(|| assert_eq!(mutex.unlock(), libc::EPERM));
        });
        assert_eq!((mutex.unlock(), mutex.unlock()), (0, libc::EPERM));
    });
}

#[test]
fn a_recursive_mutex_is_its_owners_as_often_as_it_was_locked() {
    everywhere(|| {
        let mutex = Mutex::of_type(libc::PTHREAD_MUTEX_RECURSIVE);
        assert_eq!((mutex.lock(), mutex.lock(), mutex.try_lock()), (0, 0, 0));
        let tried = AtomicUsize::new(0);
        uthread::scope(|s| {
            let other = s.spawn(|| {
                assert_eq!(mutex.try_lock(), libc::EBUSY);
                tried.store(1, Ordering::Relaxed);
                assert_eq!((mutex.lock(), mutex.lock()), (0, 0));
                assert_eq!((mutex.unlock(), mutex.unlock()), (0, 0));
            });
            while tried.load(Ordering::Relaxed) == 0 {
                uthread::yield_now();
            }
            assert_eq!((mutex.unlock(), mutex.unlock()), (0, 0));
            assert!(!other.is_finished());
            uthread::yield_now();
            assert_eq!((mutex.unlock(), mutex.unlock()), (0, libc::EPERM));
        });
    });
}

#[test]
fn a_mutex_is_not_tried_twice() {
    everywhere(|| {
        let mutex = Mutex::plain();
        assert_eq!((mutex.try_lock(), mutex.try_lock()), (0, libc::EBUSY));
        assert_eq!((mutex.unlock(), mutex.lock(), mutex.unlock()), (0, 0, 0));
        // SAFETY: nobody has it.
        assert_eq!(unsafe { libc::pthread_mutex_destroy(mutex.at()) }, 0);
    });
}

#[test]
fn those_who_wait_for_a_parked_holder_get_the_mutex() {
    for kind in [
        Mutex::plain,
        Mutex::of_processes,
        || Mutex::of_type(libc::PTHREAD_MUTEX_ERRORCHECK),
        || Mutex::of_type(libc::PTHREAD_MUTEX_RECURSIVE),
        || Mutex::of_type(libc::PTHREAD_MUTEX_ADAPTIVE_NP),
    ] {
        without_helpers(1, || {
            let (mutex, count, waiting) = (kind(), AtomicUsize::new(0), AtomicUsize::new(0));
            assert_eq!(mutex.lock(), 0);
            uthread::scope(|s| {
                for _ in 0..50 {
                    s.spawn(|| {
                        waiting.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(mutex.lock(), 0);
                        count.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(mutex.unlock(), 0);
                    });
                }
                while waiting.load(Ordering::Relaxed) < 50 {
                    uthread::yield_now();
                }
                uthread::sleep(Duration::from_millis(1));
                assert_eq!(count.load(Ordering::Relaxed), 0);
                assert_eq!(mutex.unlock(), 0);
            });
            assert_eq!(count.into_inner(), 50);
            assert_eq!((mutex.try_lock(), mutex.unlock()), (0, 0));
        });
    }
}

#[test]
fn green_threads_and_os_threads_exclude_each_other() {
    for kind in [Mutex::plain, Mutex::robust, Mutex::of_processes, || {
        Mutex::of_type(libc::PTHREAD_MUTEX_ERRORCHECK)
    }] {
        let mutex = kind();
        let inside = AtomicUsize::new(0);
        let body = |yields: bool| {
            for i in 0..100 {
                assert_eq!(mutex.lock(), 0);
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                if yields {
                    dawdle(i);
                }
                assert_eq!(inside.fetch_sub(1, Ordering::Relaxed), 1);
                assert_eq!(mutex.unlock(), 0);
            }
        };
        let runtime = runtime(2);
        watched(&runtime, || {
            std::thread::scope(|s| {
                (0..2).for_each(|_| drop(s.spawn(|| body(false))));
                runtime.run(|| {
                    uthread::scope(|s| (0..6).for_each(|_| drop(s.spawn(|| body(true)))));
                });
            });
        });
    }
}

#[test]
fn a_mutex_whose_owners_inherit_priority_can_be_had() {
    everywhere(|| {
        let mutex = Mutex::inheriting();
        assert_eq!((mutex.lock(), mutex.unlock(), mutex.try_lock(), mutex.unlock()), (0, 0, 0, 0));
    });
}

#[test]
fn a_robust_mutex_tells_that_its_owner_has_ended() {
    let mutex = Mutex::robust();
    std::thread::scope(|s| {
        s.spawn(|| assert_eq!(mutex.lock(), 0));
    });
    let runtime = runtime(1);
    watched(&runtime, || {
        runtime.run(|| {
            assert_eq!(mutex.lock(), libc::EOWNERDEAD);
            // SAFETY: it is a mutex.
            assert_eq!(unsafe { libc::pthread_mutex_consistent(mutex.at()) }, 0);
            assert_eq!((mutex.unlock(), mutex.lock(), mutex.unlock()), (0, 0, 0));
        });
    });
}

#[test]
fn waiting_for_locks_leaves_errno_as_it_was() {
    without_helpers(1, || {
        let (mutex, semaphore) = (Mutex::plain(), semaphore(false, 0));
        assert_eq!(mutex.lock(), 0);
        uthread::scope(|s| {
            s.spawn(|| {
                // SAFETY: the location is the thread's own.
                unsafe { *libc::__errno_location() = 4711 };
                assert_eq!(mutex.lock(), 0);
                semaphore.wait();
                assert_eq!(errno(), 4711);
            });
            uthread::yield_now();
            assert_eq!(mutex.unlock(), 0);
            uthread::yield_now();
            semaphore.post();
        });
    });
}

// Condition variables

/// A number that is waited for.
struct Turn {
    mutex: Mutex,
    condition: Condition,
    turn: AtomicUsize,
}

impl Turn {
    fn new() -> Turn {
        let (mutex, condition) = (Mutex::plain(), Condition::plain());
        Turn { mutex, condition, turn: AtomicUsize::new(0) }
    }

    /// Waits until it is `own`'s turn of two, and gives it to the other.
    fn play(&self, own: usize, rounds: usize) {
        for _ in 0..rounds {
            assert_eq!(self.mutex.lock(), 0);
            while self.turn.load(Ordering::Relaxed) % 2 != own {
                self.condition.wait(&self.mutex);
            }
            self.turn.fetch_add(1, Ordering::Relaxed);
            self.condition.signal();
            assert_eq!(self.mutex.unlock(), 0);
        }
    }
}

#[test]
fn two_green_threads_take_turns() {
    for workers in [1, 2] {
        without_helpers(workers, || {
            let turn = Turn::new();
            uthread::scope(|s| {
                s.spawn(|| turn.play(0, 200));
                s.spawn(|| turn.play(1, 200));
            });
            assert_eq!(turn.turn.into_inner(), 400);
        });
    }
}

#[test]
fn a_green_thread_and_an_os_thread_take_turns() {
    without_helpers(1, || {
        let turn = Arc::new(Turn::new());
        let theirs = turn.clone();
        let other = std::thread::spawn(move || theirs.play(1, 200));
        turn.play(0, 200);
        while !other.is_finished() {
            uthread::yield_now();
        }
        assert_eq!(turn.turn.load(Ordering::Relaxed), 400);
    });
}

/// Green threads that wait for something to be there, and take it.
fn crowd(threads: usize, give: impl Fn(&Mutex, &Condition, &AtomicUsize)) {
    let (mutex, condition) = (Mutex::plain(), Condition::plain());
    let (there, waiting, taken) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    uthread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                assert_eq!(mutex.lock(), 0);
                waiting.fetch_add(1, Ordering::Relaxed);
                while there.load(Ordering::Relaxed) == 0 {
                    condition.wait(&mutex);
                }
                there.fetch_sub(1, Ordering::Relaxed);
                taken.fetch_add(1, Ordering::Relaxed);
                assert_eq!(mutex.unlock(), 0);
            });
        }
        while waiting.load(Ordering::Relaxed) < threads {
            uthread::yield_now();
        }
        while taken.load(Ordering::Relaxed) < threads {
            give(&mutex, &condition, &there);
            uthread::yield_now();
        }
    });
    assert_eq!(there.into_inner(), 0);
}

/// Without the crate's functions a crowd is slow: its threads take turns on the worker, a slice each.
fn many() -> usize {
    if parks() { 1000 } else { 100 }
}

#[test]
fn a_crowd_that_waits_for_one_condition_goes_on_all_at_once() {
    without_helpers(2, || {
        let given = AtomicUsize::new(0);
        crowd(many(), |mutex, condition, there| {
            if given.swap(1, Ordering::Relaxed) == 0 {
                assert_eq!(mutex.lock(), 0);
                there.store(many(), Ordering::Relaxed);
                condition.broadcast();
                assert_eq!(mutex.unlock(), 0);
            }
        });
    });
}

#[test]
fn a_crowd_that_waits_for_one_condition_goes_on_one_by_one() {
    without_helpers(2, || {
        let given = AtomicUsize::new(0);
        crowd(many(), |mutex, condition, there| {
            if given.load(Ordering::Relaxed) < many() {
                given.fetch_add(1, Ordering::Relaxed);
                assert_eq!(mutex.lock(), 0);
                there.fetch_add(1, Ordering::Relaxed);
                assert_eq!(mutex.unlock(), 0);
                condition.signal();
            }
        });
    });
}

#[test]
fn green_threads_and_os_threads_are_woken_by_one_broadcast() {
    let runtime = runtime(1);
    watched(&runtime, || {
        let turn = Turn::new();
        let waiting = AtomicUsize::new(0);
        let wait = || {
            assert_eq!(turn.mutex.lock(), 0);
            waiting.fetch_add(1, Ordering::Relaxed);
            while turn.turn.load(Ordering::Relaxed) == 0 {
                turn.condition.wait(&turn.mutex);
            }
            assert_eq!(turn.mutex.unlock(), 0);
        };
        std::thread::scope(|s| {
            (0..3).for_each(|_| drop(s.spawn(wait)));
            runtime.run(|| {
                uthread::scope(|s| {
                    (0..3).for_each(|_| drop(s.spawn(wait)));
                    while waiting.load(Ordering::Relaxed) < 6 {
                        uthread::yield_now();
                    }
                    assert_eq!(turn.mutex.lock(), 0);
                    turn.turn.store(1, Ordering::Relaxed);
                    turn.condition.broadcast();
                    assert_eq!(turn.mutex.unlock(), 0);
                });
            });
        });
    });
}

#[test]
fn a_condition_that_processes_share_is_waited_for() {
    everywhere(|| {
        let mutex = Mutex::of_processes();
        // SAFETY: the attributes are valid.
        let condition = Condition::with(|a| unsafe {
            libc::pthread_condattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED)
        });
        let turn = Turn { mutex, condition, turn: AtomicUsize::new(0) };
        uthread::scope(|s| {
            s.spawn(|| turn.play(0, 20));
            s.spawn(|| turn.play(1, 20));
        });
    });
}

#[test]
fn who_waits_with_a_mutex_of_anothers_is_told() {
    everywhere(|| {
        let mutex = Mutex::of_type(libc::PTHREAD_MUTEX_ERRORCHECK);
        let condition = Condition::plain();
        // SAFETY: both are what they are said to be.
        let result = unsafe { libc::pthread_cond_wait(condition.at(), mutex.at()) };
        assert_eq!(result, libc::EPERM);
        condition.signal();
        assert_eq!((mutex.lock(), mutex.unlock()), (0, 0));
    });
}

// Semaphores

#[test]
fn what_is_posted_is_got_exactly_once() {
    for shared in [false, true] {
        without_helpers(2, || {
            let (full, room) = (Arc::new(semaphore(shared, 0)), Arc::new(semaphore(shared, 3)));
            let theirs = (full.clone(), room.clone());
            let producer = std::thread::spawn(move || {
                for _ in 0..300 {
                    theirs.1.wait();
                    theirs.0.post();
                }
            });
            uthread::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        for _ in 0..100 {
                            full.wait();
                            room.post();
                        }
                    });
                }
            });
            while !producer.is_finished() {
                uthread::yield_now();
            }
            let mut values = [9, 9];
            // SAFETY: they are semaphores, and the pointers valid.
            unsafe {
                libc::sem_getvalue(full.at(), &mut values[0]);
                libc::sem_getvalue(room.at(), &mut values[1]);
            }
            assert_eq!(values, [0, 3]);
        });
    }
}

#[test]
fn a_crowd_that_waits_for_a_semaphore_goes_on_one_by_one() {
    without_helpers(2, || {
        let (semaphore, waiting) = (semaphore(false, 0), AtomicUsize::new(0));
        uthread::scope(|s| {
            for _ in 0..many() {
                s.spawn(|| {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    semaphore.wait();
                });
            }
            while waiting.load(Ordering::Relaxed) < many() {
                uthread::yield_now();
            }
            (0..many()).for_each(|_| semaphore.post());
        });
        // SAFETY: it is a semaphore.
        assert_eq!(unsafe { libc::sem_trywait(semaphore.at()) }, -1);
        assert_eq!(errno(), libc::EAGAIN);
    });
}

// Times

/// What a clock says.
fn read(clock: clockid_t) -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn c(time: Duration) -> timespec {
    timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

/// A time that does not come during a test, by either clock.
fn far() -> timespec {
    c(read(libc::CLOCK_REALTIME) + Duration::from_secs(10_000))
}

/// Calls that wait until a time in vain do not end before it, and those whose time has passed end.
fn in_vain(clock: clockid_t, wait: impl Fn(*const timespec) -> c_int) {
    let wait = |time: *const timespec| loop {
        // A tick may end calls that do not come to the runtime.
        let result = wait(time);
        if uthread::interposed() || result != libc::EINTR {
            break result;
        }
    };
    for millis in [3, 0] {
        let time = read(clock) + Duration::from_millis(millis);
        assert_eq!(wait(&c(time)), libc::ETIMEDOUT);
        assert!(read(clock) >= time);
    }
    assert_eq!(wait(&c(Duration::from_secs(1))), libc::ETIMEDOUT);
    assert_eq!(wait(&timespec { tv_sec: -1, tv_nsec: 0 }), libc::ETIMEDOUT);
    assert_eq!(wait(&timespec { tv_sec: i64::MAX, tv_nsec: 1_000_000_000 }), libc::EINVAL);
}

/// The result of a call that says with `errno` why it failed.
fn reason(result: c_int) -> c_int {
    if result == -1 { errno() } else { result }
}

const CLOCKS: [clockid_t; 2] = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC];

#[test]
fn waits_for_a_mutex_do_not_end_early() {
    everywhere(|| {
        let mutex = Mutex::plain();
        assert_eq!(mutex.lock(), 0);
        // SAFETY: mutex and time are valid, here and below.
        in_vain(libc::CLOCK_REALTIME, |time| unsafe {
            libc::pthread_mutex_timedlock(mutex.at(), time)
        });
        for clock in CLOCKS {
            // SAFETY: as above.
            in_vain(clock, |time| unsafe { pthread_mutex_clocklock(mutex.at(), clock, time) });
        }
        let time = far();
        // SAFETY: as above.
        let other = |clock| unsafe { pthread_mutex_clocklock(mutex.at(), clock, &time) };
        assert_eq!(other(libc::CLOCK_BOOTTIME), libc::EINVAL);
        uthread::scope(|s| {
            s.spawn(|| {
                assert_eq!(other(libc::CLOCK_MONOTONIC), 0);
                assert_eq!(mutex.unlock(), 0);
            });
            uthread::yield_now();
            assert_eq!(mutex.unlock(), 0);
        });
        assert_eq!((mutex.try_lock(), mutex.unlock()), (0, 0));
    });
}

#[test]
fn waits_for_a_condition_do_not_end_early() {
    everywhere(|| {
        let mutex = Mutex::of_type(libc::PTHREAD_MUTEX_ERRORCHECK);
        assert_eq!(mutex.lock(), 0);
        for clock in CLOCKS {
            // SAFETY: the attributes are valid.
            let condition =
                Condition::with(|a| unsafe { libc::pthread_condattr_setclock(a, clock) });
            // SAFETY: all of it is valid, here and below.
            in_vain(clock, |time| unsafe {
                libc::pthread_cond_timedwait(condition.at(), mutex.at(), time)
            });
            for clock in CLOCKS {
                // SAFETY: as above.
                in_vain(clock, |time| unsafe {
                    pthread_cond_clockwait(condition.at(), mutex.at(), clock, time)
                });
            }
            // SAFETY: nobody waits.
            assert_eq!(unsafe { libc::pthread_cond_destroy(condition.at()) }, 0);
        }
        assert_eq!((mutex.unlock(), mutex.unlock()), (0, libc::EPERM));
    });
}

#[test]
fn waits_for_a_semaphore_do_not_end_early() {
    everywhere(|| {
        let semaphore = semaphore(false, 0);
        // SAFETY: semaphore and time are valid, here and below.
        in_vain(libc::CLOCK_REALTIME, |time| {
            // SAFETY: as above.
            reason(unsafe { libc::sem_timedwait(semaphore.at(), time) })
        });
        for clock in CLOCKS {
            // SAFETY: as above.
            in_vain(clock, |time| reason(unsafe { sem_clockwait(semaphore.at(), clock, time) }));
        }
        semaphore.post();
        semaphore.wait();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sem_trywait(semaphore.at()) }, -1);
    });
}

#[test]
fn waits_for_a_lock_of_readers_and_writers_do_not_end_early() {
    everywhere(|| {
        let lock = RwLock::new(libc::PTHREAD_RWLOCK_INITIALIZER);
        // SAFETY: lock and time are valid, here and below.
        assert_eq!(unsafe { libc::pthread_rwlock_rdlock(lock.at()) }, 0);
        // SAFETY: as above.
        in_vain(libc::CLOCK_REALTIME, |time| unsafe {
            pthread_rwlock_timedwrlock(lock.at(), time)
        });
        for clock in CLOCKS {
            // SAFETY: as above.
            in_vain(clock, |time| unsafe { pthread_rwlock_clockwrlock(lock.at(), clock, time) });
        }
        let time = far();
        // SAFETY: as above.
        unsafe {
            assert_eq!(pthread_rwlock_timedrdlock(lock.at(), &time), 0);
            assert_eq!(pthread_rwlock_clockrdlock(lock.at(), libc::CLOCK_MONOTONIC, &time), 0);
            (0..3).for_each(|_| assert_eq!(libc::pthread_rwlock_unlock(lock.at()), 0));
            assert_eq!(libc::pthread_rwlock_trywrlock(lock.at()), 0);
        }
    });
}

// Locks that are waited for on helpers

#[test]
fn readers_and_writers_of_both_kinds_exclude_each_other() {
    let (lock, inside) = (RwLock::new(libc::PTHREAD_RWLOCK_INITIALIZER), AtomicUsize::new(0));
    const WRITER: usize = 1000;
    // SAFETY: it is such a lock, in all of these calls.
    let body = |yields: bool| unsafe {
        for i in 0..60 {
            let amount = if i % 3 == 0 { WRITER } else { 1 };
            let result = match amount {
                WRITER => libc::pthread_rwlock_wrlock(lock.at()),
                _ => libc::pthread_rwlock_rdlock(lock.at()),
            };
            assert_eq!(result, 0);
            let before = inside.fetch_add(amount, Ordering::Relaxed);
            assert!(if amount == WRITER { before == 0 } else { before < WRITER });
            if yields {
                dawdle(i);
            }
            inside.fetch_sub(amount, Ordering::Relaxed);
            assert_eq!(libc::pthread_rwlock_unlock(lock.at()), 0);
        }
    };
    let runtime = runtime(2);
    watched(&runtime, || {
        std::thread::scope(|s| {
            (0..2).for_each(|_| drop(s.spawn(|| body(false))));
            runtime.run(|| {
                uthread::scope(|s| (0..6).for_each(|_| drop(s.spawn(|| body(true)))));
            });
        });
    });
}

#[test]
fn a_writer_that_locks_again_is_told_of_the_deadlock() {
    everywhere(|| {
        let lock = RwLock::new(libc::PTHREAD_RWLOCK_INITIALIZER);
        // SAFETY: it is such a lock, in all of these calls.
        unsafe {
            assert_eq!(libc::pthread_rwlock_wrlock(lock.at()), 0);
            assert_eq!(libc::pthread_rwlock_wrlock(lock.at()), libc::EDEADLK);
            assert_eq!(libc::pthread_rwlock_rdlock(lock.at()), libc::EDEADLK);
            assert_eq!(libc::pthread_rwlock_unlock(lock.at()), 0);
        }
    });
}

#[test]
fn a_crowd_on_few_helpers_gets_a_lock_of_readers_and_writers() {
    let runtime =
        Runtime::builder().workers(2).helpers(2).slice(Duration::from_micros(100)).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let lock = RwLock::new(libc::PTHREAD_RWLOCK_INITIALIZER);
            let waiting = AtomicUsize::new(0);
            // SAFETY: it is such a lock, in all of these calls.
            unsafe {
                assert_eq!(libc::pthread_rwlock_wrlock(lock.at()), 0);
                uthread::scope(|s| {
                    for _ in 0..100 {
                        s.spawn(|| {
                            waiting.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(libc::pthread_rwlock_rdlock(lock.at()), 0);
                            assert_eq!(libc::pthread_rwlock_unlock(lock.at()), 0);
                        });
                    }
                    while waiting.load(Ordering::Relaxed) < 100 {
                        uthread::yield_now();
                    }
                    assert_eq!(libc::pthread_rwlock_unlock(lock.at()), 0);
                });
            }
        });
    });
}

#[test]
fn all_who_meet_at_a_barrier_go_on_and_one_is_told_apart() {
    // SAFETY: zeroes are a value of the type, which is made a barrier for six.
    let barrier = unsafe {
        let barrier = Shared::new(std::mem::zeroed::<libc::pthread_barrier_t>());
        assert_eq!(libc::pthread_barrier_init(barrier.at(), std::ptr::null(), 6), 0);
        barrier
    };
    let told = AtomicUsize::new(0);
    let body = || {
        for _ in 0..20 {
            // SAFETY: it is a barrier.
            match unsafe { libc::pthread_barrier_wait(barrier.at()) } {
                libc::PTHREAD_BARRIER_SERIAL_THREAD => drop(told.fetch_add(1, Ordering::Relaxed)),
                result => assert_eq!(result, 0),
            }
        }
    };
    let runtime = runtime(1);
    watched(&runtime, || {
        std::thread::scope(|s| {
            (0..2).for_each(|_| drop(s.spawn(body)));
            runtime.run(|| uthread::scope(|s| (0..4).for_each(|_| drop(s.spawn(body)))));
        });
    });
    assert_eq!(told.into_inner(), 20);
}

#[test]
fn an_os_thread_that_is_joined_gives_its_result() {
    extern "C" fn waits(semaphore: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: it is the semaphore below, which outlives the thread.
        assert_eq!(unsafe { libc::sem_wait(semaphore.cast()) }, 0);
        semaphore
    }
    everywhere(|| {
        let semaphore = semaphore(false, 0);
        // SAFETY: the semaphore is there until the thread was joined; the pointers are valid.
        unsafe {
            let (mut thread, mut result) = (0, std::ptr::null_mut());
            let argument = semaphore.at().cast();
            assert_eq!(libc::pthread_create(&mut thread, std::ptr::null(), waits, argument), 0);
            assert_eq!(libc::pthread_tryjoin_np(thread, &mut result), libc::EBUSY);
            in_vain_once(|time| libc::pthread_timedjoin_np(thread, &mut result, time));
            uthread::scope(|s| {
                s.spawn(|| semaphore.post());
                assert_eq!(libc::pthread_join(thread, &mut result), 0);
            });
            assert_eq!(result, argument);
        }
    });
}

fn in_vain_once(wait: impl FnOnce(*const timespec) -> c_int) {
    let time = read(libc::CLOCK_REALTIME) + Duration::from_millis(2);
    assert_eq!(wait(&c(time)), libc::ETIMEDOUT);
    assert!(read(libc::CLOCK_REALTIME) >= time);
}
