//! Turns: who is interrupted, when, and who is not.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use uthread::Runtime;

use preempt::{SLICE, SetAtEnd, hectic, on_each, on_the_last_worker, spin_until};
use watchdog::watched;

/// Plays a scenario next to a thread that counts, on the same worker: until both are known to compute.
fn beside_one_that_counts(scenario: impl Fn(&AtomicU64) + Sync) {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            on_the_last_worker(&runtime, || {
                let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
                uthread::scope(|s| {
                    s.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    while uthread::stats().forced_switches < 10 {
                        std::hint::spin_loop();
                    }
                    let _over = SetAtEnd(&over);
                    scenario(&count);
                });
            });
        });
    }
}

/// Computes for many slices.
fn compute_for_long() {
    let began = Instant::now();
    while began.elapsed() < 20 * SLICE {
        std::hint::spin_loop();
    }
}

/// Times that the calling thread was interrupted. (That another one stands still says nothing: one that waits behind
/// a thread which cannot be interrupted is given away after some time.)
fn interruptions() -> u64 {
    uthread::schedstat().forced_switches
}

/// Plays a section next to a thread that waits for the worker, until it was interrupted at its end ten times.
fn catching_up(section: impl Fn() + Sync) {
    beside_one_that_counts(|_| {
        let mut caught_up = 0;
        while caught_up < 10 {
            let before = interruptions();
            section();
            caught_up += u64::from(interruptions() > before);
        }
    });
}

#[test]
fn sections_without_preemption_nest_and_catch_up_at_the_end_of_the_outermost() {
    catching_up(|| {
        uthread::without_preemption(|| {
            let before = interruptions();
            compute_for_long();
            uthread::without_preemption(|| uthread::without_preemption(compute_for_long));
            assert_eq!(interruptions(), before, "an inner one has ended");
            uthread::without_preemption(compute_for_long);
            compute_for_long();
            assert_eq!(interruptions(), before);
        });
    });
}

#[test]
fn sections_without_preemption_that_panic_catch_up_too() {
    catching_up(|| {
        let payload = std::panic::catch_unwind(|| {
            uthread::without_preemption(|| {
                uthread::without_preemption(compute_for_long);
                std::panic::resume_unwind(Box::new(7));
            })
        });
        assert_eq!(*payload.unwrap_err().downcast::<i32>().unwrap(), 7);
    });
}

#[test]
fn sections_without_preemption_may_wait_and_others_run_meanwhile() {
    beside_one_that_counts(|count| {
        uthread::without_preemption(|| {
            for wait in [uthread::yield_now, || uthread::sleep(Duration::from_micros(100))] {
                compute_for_long();
                let before = count.load(Ordering::Relaxed);
                while count.load(Ordering::Relaxed) == before {
                    wait();
                }
                // Still a section.
                let before = interruptions();
                compute_for_long();
                assert_eq!(interruptions(), before);
            }
        });
    });
}

#[test]
fn nobody_is_interrupted_where_that_is_switched_off() {
    for workers in [1, 2] {
        let off = hectic(workers).preemption(false).build().unwrap();
        let shared = hectic(workers).thread_blocks(false).build().unwrap();
        for runtime in [off, shared] {
            assert!(runtime.preemption().is_err());
            runtime.run(|| {
                on_each(2 * workers, |_| {
                    let mut sum = 0_u64;
                    for i in 0..3_000_000 {
                        sum = std::hint::black_box(sum + i);
                    }
                });
            });
            let stats = runtime.stats();
            assert_eq!((stats.ticks, stats.forced_switches), (0, 0));
        }
    }
}

#[test]
fn threads_that_nobody_waits_behind_get_no_ticks() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let before = uthread::stats().ticks;
                let mut sum = 0_u64;
                for i in 0..20_000_000 {
                    sum = std::hint::black_box(sum + i);
                }
                // One that was armed before may still come.
                assert!(uthread::stats().ticks <= before + 1);
            });
        });
    }
}

/// A thread that sends back what it gets, until the other end is closed; and that other end.
fn echo_in(runtime: &Runtime) -> (uthread::JoinHandle<()>, std::net::TcpStream) {
    let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = runtime.spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut byte = [0];
        while connection.read(&mut byte).unwrap() == 1 {
            connection.write_all(&byte).unwrap();
        }
    });
    (echo, std::net::TcpStream::connect(address).unwrap())
}

#[test]
fn wake_ups_are_served_while_hogs_run() {
    for workers in [1, 2] {
        let runtime = Runtime::builder().workers(workers).build().unwrap();
        watched(&runtime, || {
            let over = Arc::new(AtomicBool::new(false));
            for _ in 0..4 {
                let over = over.clone();
                runtime.spawn(move || spin_until(&over));
            }
            // A sleeper, a thread that an OS thread wakes, and one that waits for a socket.
            let sleeper =
                runtime.spawn(|| (0..20).for_each(|_| uthread::sleep(Duration::from_millis(1))));
            let (sender, receiver) = mpsc::channel();
            let parked = runtime.spawn(move || {
                for i in 0..20 {
                    uthread::park();
                    sender.send(i).unwrap();
                }
            });
            for _ in 0..20 {
                parked.thread().unpark();
                receiver.recv().unwrap();
            }
            let (echo, mut peer) = echo_in(&runtime);
            for i in 0..20 {
                peer.write_all(&[i]).unwrap();
                let mut byte = [0];
                peer.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], i);
            }
            drop(peer);
            echo.join().unwrap();
            parked.join().unwrap();
            sleeper.join().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        assert!(runtime.stats().forced_switches > 20);
    }
}

#[test]
fn ops_begun_before_a_long_turn_complete_during_it() {
    for workers in [1, 2] {
        let runtime = Runtime::builder().workers(workers).build().unwrap();
        watched(&runtime, || {
            let over = Arc::new(AtomicBool::new(false));
            for _ in 0..workers {
                let over = over.clone();
                runtime.spawn(move || spin_until(&over));
            }
            // The next read is begun each time, and then only a hog is left to run.
            let (echo, mut peer) = echo_in(&runtime);
            for _ in 0..200 {
                peer.write_all(&[1]).unwrap();
                peer.read_exact(&mut [0]).unwrap();
            }
            drop(peer);
            echo.join().unwrap();
            over.store(true, Ordering::Relaxed);
        });
    }
}
