//! Calls that block in the kernel, made directly, block nobody but their callers: they are moved to helpers, or, where
//! calls of the C library come to the runtime, parked.
//!
//! In each scenario more threads block than there are workers, and one of their neighbours on the same workers
//! ends that: it deadlocks if a blocked thread keeps its worker.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bodies::waits::{self, Stage};
use uthread::ThreadState;

use preempt::{hectic, on_each, os_thread_name};
use watchdog::watched;

/// Runtimes with one, two and four workers: twice as many threads block as there are workers; when they have been
/// moved to helpers, a neighbour ends that.
struct Neighbours;

impl Stage for Neighbours {
    fn play<A: Send, B: Send>(
        &self,
        prepare: impl Fn() -> (A, B) + Sync,
        block: impl Fn(A) + Sync,
        release: impl Fn(B) + Sync,
    ) {
        for workers in [1, 2, 4] {
            let runtime = hectic(workers).build().unwrap();
            let threads = 2 * workers;
            watched(&runtime, || {
                runtime.run(|| {
                    let (blocked, releasing): (Vec<A>, Vec<B>) =
                        (0..threads).map(|_| prepare()).unzip();
                    let before = uthread::stats().helper_moves;
                    uthread::scope(|s| {
                        for a in blocked {
                            let block = &block;
                            s.spawn(move || {
                                block(a);
                                is_on_a_worker_after(uthread::yield_now);
                                is_on_a_worker_after(|| uthread::sleep(Duration::from_micros(1)));
                            });
                        }
                        until_moved(before, workers);
                        releasing.into_iter().for_each(&release);
                    });
                });
            });
            assert!(uthread::interposed() || runtime.stats().helpers > 0, "{}", runtime.stats());
        }
    }
}

/// Waits until the blocked threads have left, of which there are twice as many as workers. All workers but this
/// one may keep one: nobody else waits there.
fn until_moved(before: u64, workers: usize) {
    let wait = |t: &&uthread::ThreadInfo| {
        matches!(t.state, ThreadState::Waiting(_) | ThreadState::Blocked)
    };
    let waiting = || uthread::threads().unwrap().iter().filter(wait).count();
    if uthread::interposed() {
        while waiting() < workers + 1 {
            uthread::yield_now();
        }
        return;
    }
    while uthread::stats().helper_moves < before + workers as u64 + 1 {
        uthread::yield_now();
    }
}

/// Whoever uses the runtime is on a worker afterwards. (Not interrupted there, it cannot be moved once more, as a
/// thread may be that is found at a system call.)
#[track_caller]
fn is_on_a_worker_after(use_the_runtime: impl Fn()) {
    uthread::without_preemption(|| {
        use_the_runtime();
        let name = os_thread_name();
        let number = name.strip_prefix("uthread-");
        assert!(number.is_some_and(|n| n.parse::<usize>().is_ok()), "it is on {name}");
    });
}

#[test]
fn a_read_of_a_pipe_gets_all_that_its_neighbour_writes() {
    waits::read(&Neighbours);
}

#[test]
fn a_read_by_libc_gets_what_is_there() {
    waits::read_once(&Neighbours);
}

#[test]
fn a_read_into_what_lies_on_the_stack_finds_it() {
    waits::read_into_stack(&Neighbours);
}

#[test]
fn a_write_to_a_full_pipe_loses_nothing() {
    waits::write(&Neighbours);
}

#[test]
fn a_read_of_a_socket_gets_both_parts() {
    waits::receive(&Neighbours);
}

#[test]
fn accepting_gets_the_connection_that_its_neighbour_makes() {
    waits::accept(&Neighbours);
}

#[test]
fn poll_sees_what_its_neighbour_writes() {
    waits::poll(&Neighbours);
}

#[test]
fn epoll_sees_what_its_neighbour_writes() {
    waits::epoll(&Neighbours);
}

#[test]
fn a_lock_of_a_file_is_got_when_its_neighbour_lets_go() {
    waits::lock_file(&Neighbours);
}

#[test]
fn a_lock_of_a_part_of_a_file_is_got_when_its_neighbour_lets_go() {
    waits::lock_part_of_file(&Neighbours);
}

#[test]
fn opening_a_named_pipe_waits_for_its_neighbour() {
    waits::open(&Neighbours);
}

#[test]
fn waiting_for_a_child_waits_alone() {
    waits::wait_for_child(&Neighbours);
}

#[test]
fn sleeping_in_the_kernel_keeps_nobody_awake() {
    waits::sleep(&Neighbours);
}

#[test]
fn a_lock_that_an_os_thread_holds_is_got_in_the_end() {
    waits::lock(&Neighbours);
}

#[test]
fn joining_an_os_thread_waits_alone() {
    waits::join(&Neighbours);
}

#[test]
fn a_channel_of_std_delivers() {
    waits::receive_from_channel(&Neighbours);
}

#[test]
fn a_condvar_of_std_wakes() {
    waits::wait_for_condvar(&Neighbours);
}

#[test]
fn a_barrier_of_std_lets_both_go() {
    waits::wait_at_barrier(&Neighbours);
}

#[test]
fn a_thread_of_std_that_is_parked_gets_its_token() {
    waits::park_in_std(&Neighbours);
}

#[test]
fn sleeping_by_std_takes_as_long_as_it_shall() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                on_each(6, |i| {
                    let time = Duration::from_millis(3 * i as u64);
                    let began = Instant::now();
                    std::thread::sleep(time);
                    assert!(began.elapsed() >= time);
                });
            });
        });
        assert!(uthread::interposed() || runtime.stats().helper_moves >= 1);
    }
}

#[test]
fn a_lock_of_std_is_got_when_its_neighbour_lets_go() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        let lock = Mutex::new(0);
        watched(&runtime, || {
            runtime.run(|| {
                let mut guard = lock.lock().unwrap();
                uthread::scope(|s| {
                    for _ in 0..2 * workers {
                        s.spawn(|| {
                            *lock.lock().unwrap() += 1;
                            is_on_a_worker_after(uthread::yield_now);
                        });
                    }
                    until_moved(0, workers);
                    *guard += 100;
                    drop(guard);
                });
            });
        });
        assert_eq!(lock.into_inner().unwrap(), 100 + 2 * workers);
    }
}

#[test]
fn threads_that_answer_each_other_block_in_turns() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let ((mut reader, mut answer), (mut answers, mut writer)) = {
                    let ((a, b), (c, d)) = (io::pipe().unwrap(), io::pipe().unwrap());
                    ((a, d), (c, b))
                };
                let echo = uthread::spawn(move || {
                    let mut byte = [0];
                    while reader.read(&mut byte).unwrap() == 1 {
                        answer.write_all(&byte).unwrap();
                    }
                });
                for i in 0..30 {
                    writer.write_all(&[i]).unwrap();
                    let mut byte = [0];
                    answers.read_exact(&mut byte).unwrap();
                    assert_eq!(byte, [i]);
                }
                drop(writer);
                echo.join().unwrap();
            });
        });
        // With several workers each has one for itself.
        // While one of the two blocks the other one's helper, there is nobody on the worker, and no tick.
        let are_moved = workers == 1 && !uthread::interposed();
        assert!(!are_moved || runtime.stats().helper_moves >= 1, "{}", runtime.stats());
    }
}
