//! Signal handlers of the program's that call these functions, signals that failing calls raise, and fork(2).

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use crate::stage::{Outcome, on_both, runtime};
use crate::subprocess::in_child;
use crate::watchdog::watched;

static HANDLED: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static TO: AtomicI32 = AtomicI32::new(-1);
static FROM: AtomicI32 = AtomicI32::new(-1);

extern "C" fn count(_signal: i32) {
    HANDLED.fetch_add(1, Relaxed);
}

/// Waits for a pipe, on which there is something, for another, on which there is nothing, and for a time.
extern "C" fn wait_in_handler(_signal: i32) {
    // SAFETY: the pointers are valid; errno is the calling thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let mut byte = 5_u8;
        let wrote = libc::write(TO.load(Relaxed), (&raw const byte).cast(), 1);
        let mut asked = libc::pollfd { fd: FROM.load(Relaxed), events: libc::POLLIN, revents: 0 };
        let polled = libc::poll(&mut asked, 1, -1);
        let read = libc::read(FROM.load(Relaxed), (&raw mut byte).cast(), 1);
        let mut nothing = libc::pollfd { fd: -1, events: 0, revents: 0 };
        libc::poll(&mut nothing, 1, 1);
        let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        libc::nanosleep(&time, std::ptr::null_mut());
        libc::sched_yield();
        if (wrote, polled, read) != (1, 1, 1) {
            WRONG.fetch_add(1, Relaxed);
        }
        *libc::__errno_location() = errno;
    }
    HANDLED.fetch_add(1, Relaxed);
}

fn install(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: integers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    c!(sigaction(signal, &action, std::ptr::null_mut())).unwrap();
}

fn in_own_process(test: &str, scenario: impl FnOnce()) {
    let output = in_child(test, &[], scenario);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn handlers_may_wait_while_their_threads_compute_or_wait() {
    in_own_process("signals::handlers_may_wait_while_their_threads_compute_or_wait", || {
        let (r, w) = std::io::pipe().unwrap();
        TO.store(w.as_raw_fd(), Relaxed);
        FROM.store(r.as_raw_fd(), Relaxed);
        for flags in [0, libc::SA_RESTART, libc::SA_ONSTACK, libc::SA_ONSTACK | libc::SA_RESTART] {
            install(libc::SIGUSR1, wait_in_handler, flags);
            let runtime = runtime();
            let before = HANDLED.load(Relaxed);
            watched(&runtime, || {
                runtime.run(|| {
                    let worker = c!(gettid()).unwrap() as i32;
                    let own = c!(getpid()).unwrap() as i32;
                    let tell = || c!(syscall(libc::SYS_tgkill, own, worker, libc::SIGUSR1));
                    uthread::scope(|s| {
                        // One computes.
                        s.spawn(|| {
                            let until = before + 20;
                            while HANDLED.load(Relaxed) < until {
                                std::hint::spin_loop();
                            }
                        });
                        // One waits for another.
                        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
                        s.spawn(move || {
                            let mut byte = [0_u8; 1];
                            for _ in 0..20 {
                                let outcome: Outcome =
                                    c!(recv(a.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0));
                                assert_eq!(outcome, Ok(1));
                            }
                        });
                        let mut b = b;
                        for _ in 0..20 {
                            tell().unwrap();
                            uthread::sleep(Duration::from_millis(2));
                            b.write_all(b"x").unwrap();
                        }
                        while HANDLED.load(Relaxed) < before + 20 {
                            let _ = tell();
                            uthread::sleep(Duration::from_millis(2));
                        }
                    });
                });
            });
            assert_eq!(WRONG.load(Relaxed), 0);
        }
    });
}

/// Words of futexes, and how often the threads that wait for them were woken.
static WORDS: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];
static TURNS: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

fn futex(word: &AtomicU32, operation: i32, value: u32) -> i64 {
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is there; there is no time-out.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, 0_usize) }
}

/// Wakes whoever waits for one of the words, which has not changed.
extern "C" fn wake_for_nothing(_signal: i32) {
    let word = &WORDS[HANDLED.load(Relaxed) as usize % WORDS.len()];
    if futex(word, libc::FUTEX_WAKE, 1) < 0 {
        WRONG.fetch_add(1, Relaxed);
    }
    HANDLED.fetch_add(1, Relaxed);
}

/// Changes the first word, and wakes whoever waits for that.
extern "C" fn wake_for_good(_signal: i32) {
    WORDS[0].fetch_add(1, SeqCst);
    if futex(&WORDS[0], libc::FUTEX_WAKE, u32::MAX) < 0 {
        WRONG.fetch_add(1, Relaxed);
    }
    HANDLED.fetch_add(1, Relaxed);
}

/// Sends the only worker signals, each when the one before was handled and `next` says so.
fn signal_worker(runtime: &uthread::Runtime, signals: u64, next: impl Fn(u64) -> bool) {
    let worker = runtime.run(|| c!(gettid()).unwrap() as i32);
    let own = c!(getpid()).unwrap() as i32;
    let before = HANDLED.load(Relaxed);
    for n in 0..signals {
        while HANDLED.load(Relaxed) - before < n || !next(n) {
            std::thread::yield_now();
        }
        c!(syscall(libc::SYS_tgkill, own, worker, libc::SIGUSR1)).unwrap();
    }
    while HANDLED.load(Relaxed) - before < signals || !next(signals) {
        std::thread::yield_now();
    }
    assert_eq!(WRONG.load(Relaxed), 0);
}

#[test]
fn handlers_wake_threads_whatever_they_interrupt() {
    if !uthread::interposed() {
        return;
    }
    in_own_process("signals::handlers_wake_threads_whatever_they_interrupt", || {
        for flags in [libc::SA_RESTART, libc::SA_RESTART | libc::SA_ONSTACK] {
            install(libc::SIGUSR1, wake_for_nothing, flags);
            let runtime = runtime();
            OVER.store(false, Relaxed);
            watched(&runtime, || {
                // Pairs of threads that wake each other.
                let threads: Vec<_> = (0..WORDS.len())
                    .map(|i| {
                        runtime.spawn(move || {
                            let (own, other) = (&WORDS[i], &WORDS[i ^ 1]);
                            while !OVER.load(Relaxed) {
                                while own.swap(0, SeqCst) == 0 {
                                    futex(own, libc::FUTEX_WAIT, 0);
                                }
                                TURNS.fetch_add(1, Relaxed);
                                other.store(1, SeqCst);
                                futex(other, libc::FUTEX_WAKE, 1);
                            }
                        })
                    })
                    .collect();
                for word in WORDS.iter().step_by(2) {
                    word.store(1, SeqCst);
                    futex(word, libc::FUTEX_WAKE, 1);
                }
                let seen = AtomicU64::new(TURNS.load(Relaxed));
                signal_worker(&runtime, 300, |_| {
                    let now = TURNS.load(Relaxed);
                    now != seen.swap(now, Relaxed)
                });
                OVER.store(true, Relaxed);
                threads.into_iter().for_each(|t| t.join().unwrap());
                WORDS.iter().for_each(|word| word.store(0, Relaxed));
            });
        }
    });
}

#[test]
fn a_wake_up_by_a_handler_is_not_lost() {
    if !uthread::interposed() {
        return;
    }
    in_own_process("signals::a_wake_up_by_a_handler_is_not_lost", || {
        for flags in [libc::SA_RESTART, libc::SA_RESTART | libc::SA_ONSTACK] {
            install(libc::SIGUSR1, wake_for_good, flags);
            // The worker sleeps, or switches between threads, which is when handlers interrupt it for the most part.
            for (blocks, others) in [(true, 0), (true, 4), (false, 0)] {
                let runtime =
                    uthread::Runtime::builder().workers(1).thread_blocks(blocks).build().unwrap();
                OVER.store(false, Relaxed);
                watched(&runtime, || {
                    let yield_all_along = || {
                        while !OVER.load(Relaxed) {
                            uthread::yield_now();
                        }
                    };
                    let others: Vec<_> =
                        (0..others).map(|_| runtime.spawn(yield_all_along)).collect();
                    let first = WORDS[0].load(SeqCst);
                    let last = first + 100;
                    let seen = std::sync::Arc::new(AtomicU32::new(first));
                    let sees = seen.clone();
                    let waiter = runtime.spawn(move || {
                        let mut now = first;
                        while now != last {
                            futex(&WORDS[0], libc::FUTEX_WAIT, now);
                            now = WORDS[0].load(SeqCst);
                            sees.store(now, Relaxed);
                        }
                    });
                    signal_worker(&runtime, 100, |n| {
                        seen.load(Relaxed) == first + u32::try_from(n).unwrap()
                    });
                    waiter.join().unwrap();
                    OVER.store(true, Relaxed);
                    others.into_iter().for_each(|t| t.join().unwrap());
                });
            }
        }
    });
}

#[test]
fn a_pipe_without_readers_raises_its_signal_once_per_call() {
    in_own_process("signals::a_pipe_without_readers_raises_its_signal_once_per_call", || {
        install(libc::SIGPIPE, count, libc::SA_RESTART);
        on_both(|| {
            let before = HANDLED.load(Relaxed);
            let raised = || HANDLED.load(Relaxed) - before;
            let mut log = Vec::new();
            let (r, w) = std::io::pipe().unwrap();
            drop(r);
            log.push((c!(write(w.as_raw_fd(), b"a".as_ptr().cast(), 1)), raised()));
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            drop(b);
            let fd = a.as_raw_fd();
            log.push((c!(write(fd, b"a".as_ptr().cast(), 1)), raised()));
            log.push((c!(send(fd, b"a".as_ptr().cast(), 1, 0)), raised()));
            log.push((c!(send(fd, b"a".as_ptr().cast(), 1, libc::MSG_NOSIGNAL)), raised()));
            log
        });
        // While they wait for room: of a socket's end with bytes that nobody will read, there is another error.
        let waited = on_both(|| {
            let before = HANDLED.load(Relaxed);
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            let (r, w) = std::io::pipe().unwrap();
            let (fd, pipe) = (a.as_raw_fd(), w.as_raw_fd());
            let bytes = [0_u8; 65536];
            let bytes = bytes.as_ptr().cast();
            while c!(send(fd, bytes, 1000, libc::MSG_DONTWAIT)).is_ok() {}
            assert_eq!(c!(write(pipe, bytes, 65536)), Ok(65536));
            uthread::scope(|s| {
                s.spawn(move || {
                    uthread::sleep(Duration::from_millis(10));
                    drop(b);
                    uthread::sleep(Duration::from_millis(10));
                    drop(r);
                });
                let sent = c!(send(fd, bytes, 1000, 0));
                let silent = HANDLED.load(Relaxed) - before;
                let written = c!(write(pipe, bytes, 1000));
                let began = Instant::now();
                while HANDLED.load(Relaxed) == before && began.elapsed() < Duration::from_secs(5) {
                    uthread::yield_now();
                }
                (sent, silent, written, HANDLED.load(Relaxed) - before)
            })
        });
        assert_eq!(waited, (Err(libc::ECONNRESET), 0, Err(libc::EPIPE), 1));
    });
}

#[test]
fn a_child_of_fork_reads_writes_sleeps_and_locks() {
    on_both(|| {
        let (r, w) = std::io::pipe().unwrap();
        let child = c!(fork()).unwrap() as i32;
        if child == 0 {
            let mut byte = 0_u8;
            let pointer: *mut u8 = &mut byte;
            let (read, write) = (r.as_raw_fd(), w.as_raw_fd());
            let time = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let mut asked = libc::pollfd { fd: read, events: libc::POLLIN, revents: 0 };
            let lock = Mutex::new(0);
            let all = c!(write(write, pointer.cast(), 1)) == Ok(1)
                && c!(poll(&mut asked, 1, -1)) == Ok(1)
                && c!(read(read, pointer.cast(), 1)) == Ok(1)
                && c!(poll(&mut asked, 1, 2)) == Ok(0)
                && c!(nanosleep(&time, std::ptr::null_mut())) == Ok(0)
                && c!(sched_yield()) == Ok(0)
                && *lock.lock().unwrap() == 0;
            // SAFETY: ends the process, without a look at anything else.
            unsafe { libc::_exit(if all { 42 } else { 1 }) };
        }
        let mut status = 0;
        assert_eq!(c!(waitpid(child, &mut status, 0)), Ok(child.into()));
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 42));
    });
}

#[test]
fn in_a_child_of_fork_nobody_waits() {
    if !uthread::interposed() {
        return;
    }
    let runtime = runtime();
    watched(&runtime, || {
        let word = AtomicU32::new(0);
        let futex = |operation: i32, value: u32| futex(&word, operation, value);
        std::thread::scope(|s| {
            s.spawn(|| {
                runtime.run(|| {
                    while word.load(Relaxed) == 0 {
                        futex(libc::FUTEX_WAIT, 0);
                    }
                });
            });
            let is_waiting =
                |t: &uthread::ThreadInfo| t.state.reason() == Some(uthread::WaitReason::Futex);
            while !runtime.threads().unwrap().iter().any(is_waiting) {
                std::thread::yield_now();
            }
            // SAFETY: the child calls what may be called there, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let woken = futex(libc::FUTEX_WAKE, 1);
                // SAFETY: ends the process, without a look at anything else.
                unsafe { libc::_exit(woken as i32) };
            }
            let mut status = 0;
            assert_eq!(c!(waitpid(child, &mut status, 0)), Ok(child.into()));
            assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 0));
            word.store(1, Relaxed);
            assert_eq!(futex(libc::FUTEX_WAKE, 1), 1);
        });
    });
}
