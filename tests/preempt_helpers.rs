//! Helpers: where threads go that block, how many there are, and how they come back.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use uthread::Runtime;

use preempt::{hectic, on_the_last_worker, spin_until};
use watchdog::watched;

/// Waits until so many threads were moved to helpers.
fn until_moved(moves: u64) {
    while uthread::stats().helper_moves < moves {
        uthread::yield_now();
    }
}

/// On the last worker: a thread blocks until it was moved, and gets what it waits for from its neighbour.
fn block_once() {
    let (reader, mut writer) = io::pipe().unwrap();
    let moved = uthread::stats().helper_moves;
    let blocked = uthread::spawn(move || [kernel::read_byte(&reader)]);
    until_moved(moved + 1);
    writer.write_all(b"z").unwrap();
    assert_eq!(blocked.join().unwrap(), *b"z");
}

#[test]
fn threads_end_where_they_blocked() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || on_the_last_worker(&runtime, || (0..30).for_each(|_| block_once())));
        assert!(runtime.stats().helper_moves >= 30);
    }
}

#[test]
fn threads_that_compute_in_sections_come_back_between_them() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            on_the_last_worker(&runtime, || {
                let (reader, mut writer) = io::pipe().unwrap();
                let moved = uthread::stats().helper_moves;
                let blocked = uthread::spawn(move || {
                    kernel::read_byte(&reader);
                    // Now on a helper, where no turn begins.
                    let turns = uthread::schedstat().turns;
                    while uthread::schedstat().turns == turns {
                        uthread::without_preemption(|| {
                            let began = Instant::now();
                            while began.elapsed() < Duration::from_millis(5) {}
                        });
                    }
                });
                until_moved(moved + 1);
                writer.write_all(b"z").unwrap();
                blocked.join().unwrap();
            });
        });
    }
}

#[test]
fn helpers_are_reused_while_they_are_idle() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            on_the_last_worker(&runtime, || {
                // One after the other: another one is started only if the last one is not back yet.
                while {
                    block_once();
                    let stats = uthread::stats();
                    stats.helper_moves < 50 || stats.helper_moves < 2 * stats.helpers
                } {}
            });
        });
    }
}

#[test]
fn helpers_end_when_they_are_idle_and_others_start() {
    std::thread::scope(|s| {
        for workers in [1, 2] {
            s.spawn(move || {
                let runtime = hectic(workers).build().unwrap();
                watched(&runtime, || {
                    on_the_last_worker(&runtime, || {
                        for _ in 0..2 {
                            block_once();
                            assert!(uthread::stats().helpers > 0);
                            while uthread::stats().helpers > 0 {
                                uthread::sleep(Duration::from_millis(10));
                            }
                        }
                    });
                });
            });
        }
    });
}

#[test]
fn more_threads_than_helpers_take_turns() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).helpers(2).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let pipes: Vec<_> = (0..10).map(|_| io::pipe().unwrap()).collect();
                let (readers, mut writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
                let blocked: Vec<_> = readers
                    .into_iter()
                    .map(|reader| uthread::spawn(move || kernel::read_byte(&reader)))
                    .collect();
                until_moved(2);
                for (i, writer) in writers.iter_mut().enumerate() {
                    writer.write_all(&[i as u8]).unwrap();
                }
                for (i, thread) in blocked.into_iter().enumerate() {
                    assert_eq!(thread.join().unwrap(), i as u8);
                }
                assert!(uthread::stats().helpers <= 2);
            });
        });
    }
}

#[test]
fn a_thread_that_computes_after_it_blocked_comes_back() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            on_the_last_worker(&runtime, || {
                let (reader, mut writer) = io::pipe().unwrap();
                let (read, over) = (&AtomicBool::new(false), &AtomicBool::new(false));
                uthread::scope(|s| {
                    s.spawn(move || {
                        kernel::read_byte(&reader);
                        read.store(true, Ordering::Release);
                        spin_until(over);
                    });
                    until_moved(1);
                    let before = uthread::stats();
                    writer.write_all(b"x").unwrap();
                    while !read.load(Ordering::Acquire) {
                        uthread::sleep(Duration::from_micros(100));
                    }
                    // It computes on the helper, and competes with its worker for a processor.
                    while uthread::stats().arrivals == before.arrivals
                        || uthread::stats().monitor_signals == before.monitor_signals
                    {
                        uthread::sleep(Duration::from_micros(100));
                    }
                    over.store(true, Ordering::Release);
                });
            });
        });
    }
}

#[test]
fn blocking_on_purpose_takes_what_cannot_be_sent() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let local = Rc::new(Cell::new(1));
                let (mut reader, mut writer) = io::pipe().unwrap();
                let neighbour = uthread::spawn(move || writer.write_all(b"y").unwrap());
                let read = uthread::blocking(|| {
                    local.set(2);
                    let mut byte = [0];
                    reader.read_exact(&mut byte).unwrap();
                    byte
                });
                assert_eq!((read, local.get()), (*b"y", 2));
                neighbour.join().unwrap();
            });
        });
        assert_eq!(runtime.stats().blocking_calls, 1);
    }
}

#[test]
fn blocking_on_purpose_nests_panics_and_may_wait() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let inner = || {
                    uthread::sleep(Duration::from_micros(10));
                    let child = uthread::spawn(|| 5);
                    uthread::yield_now();
                    uthread::blocking(|| uthread::current().unpark());
                    uthread::park();
                    child.join().unwrap()
                };
                assert_eq!(uthread::blocking(|| uthread::blocking(inner)), 5);
                assert_eq!(uthread::without_preemption(|| uthread::blocking(inner)), 5);
                let panicked = std::panic::catch_unwind(|| {
                    uthread::blocking(|| std::panic::resume_unwind(Box::new("through")))
                });
                assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "through");
                uthread::yield_now();
            });
        });
    }
    assert_eq!(uthread::blocking(|| 3), 3, "on an OS thread");
    let shared = Runtime::builder().workers(1).thread_blocks(false).build().unwrap();
    assert_eq!(shared.run(|| uthread::blocking(|| 4)), 4);
}
