//! Programs that handle signals of their own, or block some, on threads that are interrupted.
//!
//! The handlers here compute for longer than a slice, wherever the signal finds the program.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uthread::Stats;

use bodies::signals::{self, ACTIVE, BROKEN, HANDLED, compute, install, send, signal_self};
use preempt::{hectic, on_each, os_thread, several_at_once, until};
use subprocess::in_child;

/// Threads that send themselves a signal, now pinned, when it interrupts them at a known place, now not.
fn signal_themselves(signal: libc::c_int, shown: impl Fn(&Stats) -> bool + Sync) {
    for workers in [1, 2, 4] {
        let handled = HANDLED.load(Ordering::Relaxed);
        let sent = AtomicU64::new(0);
        until(
            &hectic(workers).build().unwrap(),
            |now| now.forced_switches >= 60 && shown(now),
            || {
                on_each(2 * workers, |i| {
                    for _ in 0..5 {
                        signal_self(i as u64, signal);
                        sent.fetch_add(2, Ordering::Relaxed);
                    }
                });
            },
        );
        assert_eq!(BROKEN.load(Ordering::Relaxed), 0);
        // One that is pending already is not queued a second time.
        assert!(HANDLED.load(Ordering::Relaxed) - handled >= sent.into_inner() / 2);
    }
}

/// Threads that compute while an OS thread sends their workers signals.
fn are_signalled(signal: libc::c_int, shown: impl Fn(&Stats) -> bool + Sync) {
    for workers in [1, 2, 4] {
        let targets = Mutex::new(Vec::new());
        let over = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let shown = |now: &Stats| {
            sent.load(Ordering::Relaxed) >= 50 && now.forced_switches >= 20 && shown(now)
        };
        let runtime = hectic(workers).build().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for target in targets.lock().unwrap().iter() {
                        // Not ever more on top of each other, if they come faster than they are handled.
                        if ACTIVE.load(Ordering::Relaxed) < 3 {
                            send(*target, signal);
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            });
            until(&runtime, shown, || {
                on_each(3 * workers, |i| {
                    for n in 0..5 {
                        compute(i as u64 + n);
                        let own = os_thread();
                        let mut targets = targets.lock().unwrap();
                        if !targets.contains(&own) {
                            targets.push(own);
                        }
                    }
                });
            });
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(BROKEN.load(Ordering::Relaxed), 0);
    }
}

/// Handlers are the process's: each test of them has a process of its own.
fn in_own_process(test: &str, scenario: impl FnOnce()) {
    let output = in_child(test, &[], scenario);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn handlers_on_the_threads_stack_run_undisturbed() {
    in_own_process("handlers_on_the_threads_stack_run_undisturbed", || {
        install(libc::SIGUSR1, 0);
        signal_themselves(libc::SIGUSR1, |now| now.deferred_signals >= 10);
        are_signalled(libc::SIGUSR1, |now| now.deferred_signals >= 10);
    });
}

#[test]
fn handlers_on_the_alternate_stack_run_undisturbed() {
    in_own_process("handlers_on_the_alternate_stack_run_undisturbed", || {
        install(libc::SIGUSR2, libc::SA_ONSTACK);
        signal_themselves(libc::SIGUSR2, |now| now.deferred_elsewhere >= 10);
        are_signalled(libc::SIGUSR2, |now| now.deferred_elsewhere >= 10);
    });
}

#[test]
fn handlers_of_signals_that_come_again_meanwhile_run_undisturbed() {
    in_own_process("handlers_of_signals_that_come_again_meanwhile_run_undisturbed", || {
        install(libc::SIGUSR1, libc::SA_NODEFER | libc::SA_ONSTACK);
        signal_themselves(libc::SIGUSR1, |now| now.deferred_elsewhere >= 10);
        are_signalled(libc::SIGUSR1, |now| now.deferred_elsewhere >= 10);
    });
}

#[test]
fn handlers_that_are_installed_again_and_again_run_undisturbed() {
    in_own_process("handlers_that_are_installed_again_and_again_run_undisturbed", || {
        several_at_once(signals::handle);
    });
}

#[test]
fn threads_that_block_signals_stay_where_they_block_them() {
    for workers in [1, 2, 4] {
        let shown = |now: &Stats| now.forced_switches >= 20 && now.deferred_signals >= 20;
        until(&hectic(workers).build().unwrap(), shown, || {
            on_each(3 * workers, |i| signals::block(i as u64));
        });
    }
}
