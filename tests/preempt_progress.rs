//! Nobody waits for ever: neither for a turn to end, nor for a helper, nor for what an interrupted thread holds.

#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uthread::Runtime;

use preempt::{hectic, on_each, spin_until, tell};
use subprocess::in_child;
use watchdog::watched;

/// Lets others run until it is told.
fn yield_until(told: impl Fn() -> bool) {
    while !told() {
        uthread::yield_now();
    }
}

/// Keeps its worker until it is told, and leaves the processor to those who shall tell it.
fn doze_until(told: impl Fn() -> bool) {
    while !told() {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether the caller runs on a helper; the kernel knows the names of OS threads.
fn is_on_helper() -> bool {
    std::fs::read_to_string("/proc/thread-self/comm").unwrap().starts_with("uthread-h")
}

/// One round of the scenario below; whether it came about.
fn is_answered_in_the_turn_that_others_waited_for() -> bool {
    let (other_is_busy, over, asked) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let answered = AtomicBool::new(false);
    let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    uthread::scope(|s| {
        s.spawn(|| {
            tell(&other_is_busy);
            spin_until(&over);
        });
        spin_until(&other_is_busy);
        s.spawn(|| {
            let (mut connection, _) = listener.accept().unwrap();
            tell(&asked);
            connection.read_exact(&mut [0]).unwrap();
            tell(&answered);
        });
        let mut question = std::net::TcpStream::connect(address).unwrap();
        yield_until(|| asked.load(Ordering::Acquire));
        // Two of them, so that somebody always waits.
        let yielding = [(); 2].map(|()| s.spawn(|| yield_until(|| over.load(Ordering::Acquire))));

        // Nobody else is interrupted. So from here on the present turn is one that was due though others waited.
        let interrupted = || uthread::stats().forced_switches;
        let before = interrupted();
        while interrupted() == before {
            std::hint::spin_loop();
        }
        let turn = interrupted();
        // The other worker becomes idle and takes those who wait.
        tell(&over);
        while yielding.iter().any(|thread| !thread.is_finished()) {
            std::hint::spin_loop();
        }
        let is_same_turn = interrupted() == turn;
        question.write_all(b"?").unwrap();
        spin_until(&answered);
        is_same_turn
    })
}

#[test]
fn a_turn_for_which_others_have_waited_ends_though_they_are_gone() {
    // A slice long enough for the other worker to come meanwhile.
    let runtime = Runtime::builder().workers(2).slice(Duration::from_millis(10)).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| while !is_answered_in_the_turn_that_others_waited_for() {});
    });
    assert!(runtime.stats().stolen >= 2);
}

#[test]
fn many_threads_that_block_on_purpose_share_few_helpers() {
    const THREADS: u64 = 16;
    const CALLS: u64 = 400;
    let runtime = hectic(4).helpers(4).build().unwrap();
    let calls = AtomicU64::new(0);
    watched(&runtime, || {
        runtime.run(|| {
            on_each(THREADS as usize, |_| {
                // Without a helper, calls are made where they are.
                while !uthread::blocking(is_on_helper) {}
                for _ in 0..CALLS {
                    uthread::blocking(|| calls.fetch_add(1, Ordering::Relaxed));
                }
            });
        });
    });
    assert_eq!(calls.into_inner(), THREADS * CALLS);
    let stats = runtime.stats();
    assert!(stats.blocking_calls >= THREADS * (CALLS + 1), "{stats}");
    assert!((1..=4).contains(&stats.helpers), "{stats}");
}

#[test]
fn a_thread_on_the_only_helper_is_served_by_one_that_finds_none() {
    let runtime = hectic(1).helpers(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let served = uthread::spawn(move || kernel::read_byte(&reader));
            yield_until(|| uthread::stats().helper_moves == 1);

            let (order, mut orders) = std::io::pipe().unwrap();
            let wants = Arc::new(AtomicBool::new(false));
            let wanted = wants.clone();
            let serving = uthread::spawn(move || {
                tell(&wants);
                kernel::read_byte(&order);
                writer.write_all(b"!").unwrap();
            });
            yield_until(|| wanted.load(Ordering::Acquire));
            // Each time it repeats its call, until a tick ends that.
            let ticks = uthread::stats().ticks;
            yield_until(|| uthread::stats().ticks >= ticks + 5);
            assert_eq!((uthread::stats().helper_moves, uthread::stats().helpers), (1, 1));
            assert!(!serving.is_finished() && !served.is_finished());
            orders.write_all(b"!").unwrap();
            serving.join().unwrap();
            served.join().unwrap();
        });
    });
}

#[test]
fn a_stall_hook_may_wait_for_a_thread_that_waits_for_a_helper() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let hook_waits = Arc::new(AtomicBool::new(false));
    let (theirs, waits) = (log.clone(), hook_waits.clone());
    let runtime = hectic(1)
        .stall_threshold(Duration::from_millis(1))
        .on_stall(move |_| {
            if matches!(theirs.try_lock(), Err(TryLockError::WouldBlock)) {
                tell(&waits);
                theirs.lock().unwrap().push("hook");
            }
        })
        .build()
        .unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let (locked, reads) = (AtomicBool::new(false), AtomicBool::new(false));
            uthread::scope(|s| {
                s.spawn(|| {
                    let mut log = log.lock().unwrap();
                    tell(&locked);
                    yield_until(|| hook_waits.load(Ordering::Acquire));
                    tell(&reads);
                    kernel::read_byte(&reader);
                    log.push("thread");
                });
                yield_until(|| locked.load(Ordering::Acquire));
                uthread::without_preemption(|| {
                    doze_until(|| hook_waits.load(Ordering::Acquire));
                });
                yield_until(|| reads.load(Ordering::Acquire));
                yield_until(|| uthread::stats().helpers == 1);
                writer.write_all(b"!").unwrap();
            });
        });
    });
    assert!(runtime.stats().stalls >= 1);
    // The hook has returned once the runtime is gone.
    drop(runtime);
    let log = log.lock().unwrap();
    assert_eq!(log[..2], ["thread", "hook"]);
}

#[test]
fn a_stall_hook_that_panics_is_called_again_and_helpers_are_started() {
    let calls = Arc::new(AtomicU64::new(0));
    let theirs = calls.clone();
    let runtime = hectic(1)
        .stall_threshold(Duration::from_millis(1))
        .on_stall(move |_| {
            theirs.fetch_add(1, Ordering::Release);
            // A panic without a message on stderr.
            std::panic::resume_unwind(Box::new("the hook's"));
        })
        .build()
        .unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            for call in 1..=2 {
                let waiting = uthread::spawn(|| ());
                uthread::without_preemption(|| {
                    doze_until(|| calls.load(Ordering::Acquire) >= call);
                });
                waiting.join().unwrap();
                while !uthread::blocking(is_on_helper) {}
            }
        });
    });
    assert!(runtime.stats().stalls >= 2);
}

#[test]
fn a_lock_wanted_without_preemption_is_got_though_its_holder_was_interrupted() {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (lock, held) = (Mutex::new(()), AtomicBool::new(false));
            let (wanted, released) = (AtomicBool::new(false), AtomicBool::new(false));
            uthread::scope(|s| {
                let holder = s.spawn(|| {
                    let guard = lock.lock().unwrap();
                    tell(&held);
                    // The other one runs on the same worker: this one is interrupted.
                    spin_until(&wanted);
                    // The worker waits for the lock.
                    let rescued = is_on_helper();
                    tell(&released);
                    drop(guard);
                    rescued
                });
                yield_until(|| held.load(Ordering::Acquire));
                uthread::without_preemption(|| {
                    assert!(lock.try_lock().is_err());
                    tell(&wanted);
                    drop(lock.lock().unwrap());
                    assert!(released.load(Ordering::Acquire));
                });
                assert!(holder.join().unwrap());
            });
        });
    });
    assert!(runtime.stats().deferred_disabled >= 1);
}

/// Threads that have waited for something else run on a worker only.
#[test]
fn the_holder_of_a_lock_is_rescued_though_threads_that_cannot_be_wait_in_front_of_it() {
    const IN_FRONT: u64 = 3;
    let runtime = hectic(1).build().unwrap();
    let (is_stuck, are_unparked) = (AtomicBool::new(false), AtomicBool::new(false));
    watched(&runtime, || {
        let parked: Vec<_> = (0..IN_FRONT).map(|_| runtime.spawn(uthread::park)).collect();
        doze_until(|| runtime.stats().parks == IN_FRONT);
        std::thread::scope(|s| {
            s.spawn(|| {
                doze_until(|| is_stuck.load(Ordering::Acquire));
                parked.iter().for_each(|thread| thread.thread().unpark());
                tell(&are_unparked);
            });
            runtime.run(|| {
                let (lock, held, wanted) =
                    (Mutex::new(()), AtomicBool::new(false), AtomicBool::new(false));
                uthread::scope(|s| {
                    let holder = s.spawn(|| {
                        let _guard = lock.lock().unwrap();
                        tell(&held);
                        // The other one runs on the same worker: this one is interrupted.
                        spin_until(&wanted);
                        is_on_helper()
                    });
                    yield_until(|| held.load(Ordering::Acquire));
                    uthread::without_preemption(|| {
                        tell(&is_stuck);
                        doze_until(|| are_unparked.load(Ordering::Acquire));
                        assert!(lock.try_lock().is_err());
                        tell(&wanted);
                        drop(lock.lock().unwrap());
                    });
                    assert!(holder.join().unwrap());
                });
            });
        });
        parked.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_runtime_that_lacks_descriptors_is_an_error_or_works() {
    let test = "a_runtime_that_lacks_descriptors_is_an_error_or_works";
    let output = in_child(test, &[], || {
        let (usual, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
        let mut errors = 0;
        for limit in next.. {
            setrlimit(Resource::RLIMIT_NOFILE, limit, most).unwrap();
            let built = Runtime::builder().workers(2).build();
            // If it works it does so with what it has.
            let works = built.map(|runtime| {
                watched(&runtime, || {
                    runtime.run(|| uthread::spawn(|| uthread::blocking(|| 7)).join().unwrap())
                })
            });
            setrlimit(Resource::RLIMIT_NOFILE, usual, most).unwrap();
            match works {
                Ok(seven) => {
                    assert_eq!(seven, 7);
                    break;
                }
                Err(e) => {
                    let of_the_system = e.raw_os_error() == Some(libc::EMFILE);
                    assert!(of_the_system || e.to_string().contains("descriptor"), "{e}");
                }
            }
            errors += 1;
        }
        // Workers have a ring and a bell each, at the least.
        assert!(errors >= 4, "{errors}");
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_child_of_fork_forgets_that_it_was_to_be_interrupted() {
    const RAN: libc::c_int = 7;
    const SECONDS: libc::c_uint = 30;
    let runtime = hectic(1).build().unwrap();
    let parent = std::process::id();
    let over = AtomicBool::new(false);
    let statuses = watched(&runtime, || {
        runtime.run(|| {
            uthread::scope(|s| {
                s.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        (0..1000).for_each(|_| std::hint::spin_loop());
                        if std::process::id() != parent {
                            // SAFETY: it ends a copy of the process, without running anything else in it.
                            unsafe { libc::_exit(RAN) };
                        }
                    }
                });
                let statuses = [(); 5].map(|()| {
                    // Back from the helper on which it may have waited for the last one.
                    uthread::yield_now();
                    let child = uthread::without_preemption(|| {
                        let deferred = uthread::stats().deferred_disabled;
                        while uthread::stats().deferred_disabled == deferred {
                            std::hint::spin_loop();
                        }
                        // SAFETY: the child calls async-signal-safe functions only.
                        let child = unsafe { libc::fork() };
                        if child == 0 {
                            // SAFETY: as above. It may not hang.
                            unsafe { libc::alarm(SECONDS) };
                        }
                        child
                    });
                    if child == 0 {
                        // SAFETY: as above.
                        unsafe { libc::_exit(0) };
                    }
                    assert!(child > 0, "{}", std::io::Error::last_os_error());
                    wait_for(child)
                });
                over.store(true, Ordering::Relaxed);
                statuses
            })
        })
    });
    assert_eq!(statuses.map(|status| (status.code(), status.signal())), [(Some(0), None); 5]);
}

fn wait_for(child: libc::pid_t) -> std::process::ExitStatus {
    let mut status = 0;
    // SAFETY: the pointer is valid; the child is the caller's, who waits for it once.
    while unsafe { libc::waitpid(child, &mut status, 0) } != child {
        assert_eq!(std::io::Error::last_os_error().kind(), ErrorKind::Interrupted);
    }
    std::process::ExitStatus::from_raw(status)
}

/// The monitor sleeps while nothing runs. A thread that is known as a hog has its turn guarded from the beginning,
/// without the tick that comes first for others.
#[test]
fn a_hog_that_wakes_up_after_a_long_sleep_is_watched() {
    let reported = Arc::new(AtomicBool::new(false));
    let theirs = reported.clone();
    let runtime = Runtime::builder()
        .workers(1)
        .slice(Duration::from_millis(1))
        .stall_threshold(Duration::from_millis(5))
        .on_stall(move |_| tell(&theirs))
        .build()
        .unwrap();
    let is_pinned = AtomicBool::new(false);
    watched(&runtime, || {
        std::thread::scope(|s| {
            s.spawn(|| {
                doze_until(|| is_pinned.load(Ordering::Acquire));
                runtime.spawn(|| ()).join().unwrap();
            });
            runtime.run(|| {
                let hog = || {
                    let before = uthread::schedstat().forced_switches;
                    while uthread::schedstat().forced_switches < before + 5 {}
                };
                uthread::scope(|s| {
                    s.spawn(hog);
                    hog();
                });
                let alone = std::time::Instant::now();
                while alone.elapsed() < Duration::from_millis(5) {}
                uthread::sleep(Duration::from_millis(500));
                uthread::without_preemption(|| {
                    tell(&is_pinned);
                    doze_until(|| reported.load(Ordering::Acquire));
                });
            });
        });
    });
}
