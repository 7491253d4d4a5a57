//! Threads that compute for long are interrupted wherever they are, and notice nothing.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::time::{Duration, Instant};

use bodies::memory::{self, DESTROYED};
use bodies::output::{self, PANICKED, PANICS, PRINTED};
use bodies::spawns;
use preempt::{hectic, interrupted, on_each, several_at_once, spin_until, until};
use subprocess::in_child;
use uthread::Runtime;
use watchdog::watched;

#[test]
fn that_wait_for_what_another_thread_will_do_get_it_done() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        let pairs: Vec<_> =
            (0..2 * workers).map(|_| [const { AtomicBool::new(false) }; 2]).collect();
        watched(&runtime, || {
            runtime.run(|| {
                uthread::scope(|s| {
                    for [there, back] in &pairs {
                        // The first one of each pair runs first, and has the worker until it is interrupted.
                        s.spawn(|| {
                            there.store(true, Ordering::Release);
                            spin_until(back);
                        });
                        s.spawn(|| {
                            spin_until(there);
                            back.store(true, Ordering::Release);
                        });
                    }
                });
            });
        });
        let forced = runtime.stats().forced_switches;
        assert!(workers > 1 || forced >= 2, "{forced} forced switches with one worker");
    }
}

/// While a hog is alone its worker's timer is armed for what is pending, however far away that is.
#[test]
fn that_come_after_one_that_was_alone_with_a_distant_deadline_let_each_other_run() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    until(
        &runtime,
        |now| now.forced_switches > 0,
        || {
            let patient = uthread::spawn(|| uthread::park_timeout(Duration::from_secs(600)));
            let alone = || {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(20) {
                    std::hint::spin_loop();
                }
            };
            uthread::spawn(alone).join().unwrap();
            let over = AtomicBool::new(false);
            uthread::scope(|s| {
                s.spawn(|| spin_until(&over));
                s.spawn(|| over.store(true, Ordering::Release));
            });
            patient.thread().unpark();
            patient.join().unwrap();
        },
    );
}

#[test]
fn that_loop_without_a_call_let_each_other_run() {
    interrupted(|| {
        let turns = [const { AtomicU64::new(0) }; 8];
        on_each(8, |i| {
            // Each waits for all others to get as far as it is.
            for turn in 1..5 {
                turns[i].store(turn, Ordering::Release);
                while turns.iter().any(|t| t.load(Ordering::Acquire) < turn) {
                    std::hint::spin_loop();
                }
            }
        });
    });
}

#[test]
fn that_count_count_right() {
    several_at_once(bodies::count);
}

#[test]
fn that_allocate_and_free_keep_the_heap_whole() {
    several_at_once(memory::allocate);
}

#[test]
fn that_free_what_others_allocated_keep_the_heap_whole() {
    several_at_once(memory::hand_on);
}

#[test]
fn that_format_and_parse_get_what_they_wrote() {
    several_at_once(memory::format);
}

/// Plays a body in a process of its own; the number that it printed at the end, and all its output.
fn output_of(
    test: &str,
    environment: &[(&str, &str)],
    body: fn(u64),
    done: &AtomicU64,
) -> (u64, String) {
    let output = in_child(test, environment, || {
        several_at_once(body);
        println!("done {}", done.load(Ordering::Relaxed));
    });
    assert!(output.status.success(), "{output:?}");
    let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let all = out.unwrap() + &err.unwrap();
    let done = all.lines().find_map(|line| line.strip_prefix("done ")).unwrap();
    (done.parse().unwrap(), all)
}

#[test]
fn that_print_write_whole_lines() {
    let test = "that_print_write_whole_lines";
    let (done, output) = output_of(test, &[], output::print, &PRINTED);
    assert_eq!(output::check_printed(&output), done);
}

#[test]
fn that_panic_with_backtraces_panic_for_themselves() {
    let test = "that_panic_with_backtraces_panic_for_themselves";
    // The default hook resolves names and prints them, down to the first frame.
    let environment = [("RUST_BACKTRACE", "full")];
    let (done, output) = output_of(test, &environment, output::panic_aloud, &PANICKED);
    assert_eq!(output.matches(PANICS).count() as u64, done, "{output}");
    let traces = output.split("stack backtrace:\n").skip(1);
    let whole = traces.filter(|t| t.contains("innermost") && t.contains("uthread_begin"));
    assert_eq!(whole.count() as u64, done, "{output}");
}

#[test]
fn that_panic_end_with_their_payloads() {
    std::panic::set_hook(Box::new(|_| drop(std::backtrace::Backtrace::force_capture())));
    several_at_once(|seed| {
        let ends = uthread::spawn(move || {
            bodies::count(seed);
            panic!("{seed}")
        });
        let payload: String = *ends.join().unwrap_err().downcast().unwrap();
        assert_eq!(payload, seed.to_string());
    });
}

#[test]
fn that_unwind_run_all_destructors_on_the_way() {
    several_at_once(output::unwind);
}

#[test]
fn that_capture_backtraces_capture_their_own() {
    several_at_once(output::capture);
}

#[test]
fn that_contend_for_locks_of_std_exclude_each_other() {
    interrupted(|| {
        let counter = Mutex::new(0_u64);
        let table = RwLock::new(vec![0_u64; 16]);
        let (once, made) = (OnceLock::new(), AtomicUsize::new(0));
        let (sender, receiver) = mpsc::sync_channel(3);
        let start = &Barrier::new(9);
        uthread::scope(|s| {
            let received = s.spawn(move || {
                start.wait();
                (0..8 * 20).map(|_| receiver.recv().unwrap()).sum::<usize>()
            });
            on_each(8, |i| {
                start.wait();
                once.get_or_init(|| {
                    made.fetch_add(1, Ordering::Relaxed);
                    bodies::count(i as u64);
                });
                for n in 0..100 {
                    let mut held = counter.lock().unwrap();
                    let before = *held;
                    for _ in 0..100 {
                        std::hint::spin_loop();
                    }
                    *held = before + 1;
                    drop(held);
                    if n % 10 == 0 {
                        table.write().unwrap()[i] += 1;
                    } else {
                        std::hint::black_box(table.read().unwrap().iter().sum::<u64>());
                    }
                    if n % 5 == 0 {
                        sender.send(i).unwrap();
                    }
                }
            });
            assert_eq!(received.join().unwrap(), 20 * (0..8).sum::<usize>());
        });
        assert_eq!(made.into_inner(), 1);
        assert_eq!(counter.into_inner().unwrap(), 8 * 100);
        assert_eq!(table.into_inner().unwrap().iter().sum::<u64>(), 8 * 10);
    });
}

#[test]
fn that_compute_with_a_lock_in_hand_are_alone_with_what_it_guards() {
    several_at_once(bodies::contend);
}

#[test]
fn that_wait_for_a_condvar_are_woken() {
    interrupted(|| {
        let turn = (Mutex::new(0_usize), Condvar::new());
        on_each(6, |i| {
            for round in 0..3 {
                let mut now = turn.0.lock().unwrap();
                while *now != round * 6 + i {
                    now = turn.1.wait(now).unwrap();
                }
                *now += 1;
                turn.1.notify_all();
                drop(now);
                bodies::count(i as u64);
            }
        });
    });
}

#[test]
fn that_borrow_a_thread_local_are_alone_with_it() {
    several_at_once(memory::borrow);
}

#[test]
fn that_keep_things_on_stack_and_in_thread_locals_find_them_there() {
    several_at_once(memory::remember);
}

#[test]
fn that_recurse_to_their_guard_page_survive_every_tick() {
    for workers in [1, 2, 4] {
        let shown = |now: &uthread::Stats| now.forced_switches >= 30 && now.deferred_stack >= 10;
        until(&hectic(workers).build().unwrap(), shown, || {
            on_each(8, |i| memory::recurse(i as u64))
        });
    }
}

#[test]
fn that_end_run_their_destructors() {
    let ended = AtomicU64::new(0);
    interrupted(|| {
        on_each(20, |i| memory::leave_behind(i as u64));
        ended.fetch_add(2 * 20, Ordering::Relaxed);
    });
    // No other test of this file leaves any behind.
    assert_eq!(DESTROYED.load(Ordering::Relaxed), ended.into_inner());
}

#[test]
fn that_have_just_failed_still_know_why() {
    several_at_once(bodies::fail);
}

#[test]
fn that_must_not_be_interrupted_stay_and_catch_up() {
    several_at_once(bodies::insist);
}

#[test]
fn that_wait_now_and_then_are_woken() {
    several_at_once(|seed| {
        bodies::wait(seed);
        bodies::count(seed);
    });
}

#[test]
fn that_spawn_threads_join_them() {
    several_at_once(spawns::spawn);
}

#[test]
fn that_spawn_os_threads_join_them() {
    several_at_once(spawns::spawn_os_thread);
}

#[test]
fn that_spawn_processes_wait_for_them() {
    several_at_once(spawns::spawn_process);
}

#[test]
fn that_fork_have_children_that_compute() {
    several_at_once(spawns::fork);
}
