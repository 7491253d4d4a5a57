//! A panic is the affair of the green thread that panics, and reaches who joins it.
//!
//! Panics of these tests carry an [`Expected`], which is not reported on stderr.

#[path = "common/migration.rs"]
mod migration;
#[path = "common/subprocess.rs"]
mod subprocess;

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use migration::{WORKERS, among_several_workers, migrate};

/// What these tests panic with.
#[derive(Debug, PartialEq)]
struct Expected(usize);

impl Expected {
    fn panic(number: usize) -> ! {
        static QUIET: Once = Once::new();
        QUIET.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !info.payload().is::<Expected>() {
                    report(info);
                }
            }));
        });
        panic_any(Expected(number))
    }

    #[track_caller]
    fn in_payload(payload: Box<dyn Any + Send>) -> usize {
        payload.downcast::<Expected>().expect("another panic").0
    }
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

mod joining {
    use super::*;

    #[test]
    fn gives_the_payload() {
        among_several_workers(|| {
            let thread = uthread::spawn(|| {
                migrate();
                Expected::panic(1)
            });
            assert_eq!(Expected::in_payload(thread.join().unwrap_err()), 1);
        });
    }

    #[test]
    fn from_an_os_thread_gives_the_payload() {
        let runtime = uthread::Runtime::builder().workers(WORKERS).build().unwrap();
        let thread = runtime.spawn(|| Expected::panic(2));
        assert_eq!(Expected::in_payload(thread.join().unwrap_err()), 2);
        let panicked = catch_unwind(AssertUnwindSafe(|| runtime.run(|| Expected::panic(3))));
        assert_eq!(Expected::in_payload(panicked.unwrap_err()), 3);
    }

    #[test]
    fn of_many_threads_gives_each_its_own_outcome() {
        among_several_workers(|| {
            let body = |i: usize| {
                uthread::yield_now();
                if i.is_multiple_of(3) { Expected::panic(i) } else { i }
            };
            let threads: Vec<_> = (0..1000).map(|i| uthread::spawn(move || body(i))).collect();
            for (i, thread) in threads.into_iter().enumerate() {
                match thread.join() {
                    Ok(result) => assert!(result == i && i % 3 != 0),
                    Err(payload) => {
                        assert!(Expected::in_payload(payload) == i && i % 3 == 0);
                    }
                }
            }
        });
    }
}

mod catching {
    use super::*;

    #[test]
    fn works_over_switches_and_migrations() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for caller in 0..WORKERS - 1 {
                    s.spawn(move || {
                        for round in 0..30 {
                            let caught = catch_unwind(|| {
                                migrate();
                                let _guard = OnDrop(migrate);
                                Expected::panic(caller * 100 + round)
                            });
                            migrate();
                            assert_eq!(
                                Expected::in_payload(caught.unwrap_err()),
                                caller * 100 + round
                            );
                            assert!(!std::thread::panicking());
                        }
                    });
                }
            });
        });
    }

    #[test]
    fn nests_with_a_switch_at_each_level() {
        fn nest(depth: usize) {
            let caught = catch_unwind(|| {
                uthread::yield_now();
                if depth > 0 {
                    nest(depth - 1);
                }
                Expected::panic(depth)
            });
            uthread::yield_now();
            assert_eq!(Expected::in_payload(caught.unwrap_err()), depth);
        }
        among_several_workers(|| {
            uthread::scope(|s| {
                for _ in 0..20 {
                    s.spawn(|| nest(10));
                }
            });
        });
    }
}

mod unwinding {
    use super::*;

    #[test]
    fn is_seen_by_its_own_thread_alone() {
        among_several_workers(|| {
            let panicker = uthread::spawn(|| {
                let _guard = OnDrop(|| {
                    for _ in 0..50 {
                        assert!(std::thread::panicking());
                        uthread::yield_now();
                        uthread::sleep(Duration::from_micros(50));
                    }
                });
                Expected::panic(0)
            });
            while !panicker.is_finished() {
                assert!(!std::thread::panicking());
                uthread::spawn(|| assert!(!std::thread::panicking())).join().unwrap();
            }
            assert!(panicker.join().is_err());
        });
    }

    #[test]
    fn may_yield_sleep_and_migrate_in_many_threads_at_once() {
        const THREADS: usize = 200;
        let dropped = AtomicUsize::new(0);
        let drop_while = |switch: fn(), number| {
            let _outer = OnDrop(|| {
                assert!(std::thread::panicking());
                switch();
                dropped.fetch_add(1, Relaxed);
            });
            let _inner = OnDrop(|| {
                switch();
                // A panic that does not leave the destructor is legal while unwinding.
                let caught = catch_unwind(|| Expected::panic(number + THREADS));
                switch();
                assert_eq!(Expected::in_payload(caught.unwrap_err()), number + THREADS);
                dropped.fetch_add(1, Relaxed);
            });
            Expected::panic(number)
        };
        among_several_workers(|| {
            uthread::scope(|s| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|i| {
                        let switch: fn() = match i {
                            0..WORKERS => || {
                                uthread::park_timeout(Duration::from_micros(100));
                            },
                            _ if i % 2 == 0 => uthread::yield_now,
                            _ => || uthread::sleep(Duration::from_micros(100)),
                        };
                        s.spawn(move || drop_while(switch, i))
                    })
                    .collect();
                for (i, thread) in threads.into_iter().enumerate() {
                    assert_eq!(Expected::in_payload(thread.join().unwrap_err()), i);
                }
                let threads: Vec<_> =
                    (1..WORKERS).map(|i| s.spawn(move || drop_while(migrate, i))).collect();
                for (i, thread) in (1..).zip(threads) {
                    assert_eq!(Expected::in_payload(thread.join().unwrap_err()), i);
                }
            });
        });
        assert_eq!(dropped.into_inner(), 2 * (THREADS + WORKERS - 1));
    }

    #[test]
    fn may_spawn_and_join() {
        among_several_workers(|| {
            let thread = uthread::spawn(|| {
                let _guard = OnDrop(|| {
                    let child = uthread::spawn(|| Expected::panic(2));
                    assert_eq!(Expected::in_payload(child.join().unwrap_err()), 2);
                    assert_eq!(uthread::spawn(|| 3).join().unwrap(), 3);
                });
                Expected::panic(1)
            });
            assert_eq!(Expected::in_payload(thread.join().unwrap_err()), 1);
        });
    }

    #[test]
    fn that_panics_again_aborts_the_process() {
        use std::os::unix::process::ExitStatusExt;

        let test = "unwinding::that_panics_again_aborts_the_process";
        let output = subprocess::in_child(test, &[], || {
            among_several_workers(|| {
                let thread = uthread::spawn(|| {
                    let _guard = OnDrop(|| {
                        migrate();
                        panic!("second")
                    });
                    panic!("first")
                });
                let _ = thread.join();
            });
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
        assert!(stderr.contains("first") && stderr.contains("second"), "{stderr}");
    }
}

mod backtraces {
    use super::*;
    use std::backtrace::Backtrace;

    #[inline(never)]
    fn recognisable_frame(backtrace: impl FnOnce() -> Backtrace) -> String {
        std::hint::black_box(backtrace()).to_string()
    }

    /// Reaches from the function that asked to the green thread's first frame, and not beyond: the worker's
    /// frames may be others at the next moment. (Of inlined functions, line tables tell the last part of the
    /// name only; these names are told with and without.)
    #[track_caller]
    fn assert_whole(backtrace: &str) {
        let inner = backtrace.find("recognisable_frame");
        let thread = backtrace.find("uthread::thread::");
        let root = backtrace.find("uthread_begin");
        assert!(inner.is_some(), "{backtrace}");
        assert!(inner < thread && thread < root, "{backtrace}");
        assert!(!backtrace.contains("start_workers"), "{backtrace}");
    }

    #[test]
    fn are_whole_before_and_after_a_migration() {
        among_several_workers(|| {
            assert_whole(&recognisable_frame(Backtrace::force_capture));
            let captured = recognisable_frame(|| {
                migrate();
                let captured = Backtrace::force_capture();
                migrate();
                captured
            });
            assert_whole(&captured);
        });
    }

    #[test]
    fn of_panics_are_printed_whole() {
        let test = "backtraces::of_panics_are_printed_whole";
        let output = subprocess::in_child(test, &[("RUST_BACKTRACE", "full")], || {
            among_several_workers(|| {
                let thread = uthread::spawn(|| {
                    migrate();
                    recognisable_frame(|| panic!("loud"))
                });
                assert!(thread.join().is_err());
            });
        });
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("loud"), "{stderr}");
        assert_whole(&stderr);
    }

    #[test]
    fn of_many_threads_at_once_are_whole() {
        among_several_workers(|| {
            uthread::scope(|s| {
                for _ in 0..20 {
                    s.spawn(|| {
                        uthread::yield_now();
                        assert_whole(&recognisable_frame(Backtrace::force_capture));
                    });
                }
            });
        });
    }
}

mod results {
    use super::*;

    /// Counts its drops, each of which lets others run.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            uthread::yield_now();
            self.0.fetch_add(1, Relaxed);
        }
    }

    const THREADS: usize = 500;

    /// Spawns threads, has `part` part with each one's handle, and counts results dropped when all
    /// threads have ended.
    fn dropped(part: impl Fn(usize, uthread::JoinHandle<Counted>) + Sync) -> usize {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = || Counted(drops.clone());
        // The runtime ends with the last thread.
        among_several_workers(|| {
            for i in 0..THREADS {
                let result = counted();
                let body = move || if i % 2 == 0 { result } else { panic_with(result) };
                part(i, uthread::spawn(body));
            }
        });
        drops.load(Relaxed)
    }

    fn panic_with(result: Counted) -> ! {
        panic::resume_unwind(Box::new(result))
    }

    #[test]
    fn of_detached_threads_are_dropped_once() {
        assert_eq!(dropped(|_, thread| drop(thread)), THREADS);
    }

    #[test]
    fn of_threads_detached_at_any_moment_are_dropped_once() {
        let dropped = dropped(|i, thread| {
            for _ in 0..i % 20 {
                uthread::yield_now();
            }
            drop(thread);
        });
        assert_eq!(dropped, THREADS);
    }

    #[test]
    fn of_threads_that_ended_before_they_were_detached_are_dropped_once() {
        let dropped = dropped(|_, thread| {
            while !thread.is_finished() {
                uthread::yield_now();
            }
            drop(thread);
        });
        assert_eq!(dropped, THREADS);
    }

    #[test]
    fn that_were_joined_are_dropped_once() {
        let dropped = dropped(|_, thread| match thread.join() {
            Ok(result) => drop(result),
            Err(payload) => drop(payload),
        });
        assert_eq!(dropped, THREADS);
    }

    #[test]
    fn of_threads_that_could_not_be_named_are_not_made() {
        let drops = Arc::new(AtomicUsize::new(0));
        let captured = Counted(drops.clone());
        let name = "no\0name".to_owned();
        let spawn = || uthread::Builder::new().name(name).spawn(move || drop(captured));
        let panicked = catch_unwind(AssertUnwindSafe(spawn));
        assert!(panicked.is_err());
        assert_eq!(drops.load(Relaxed), 1);
    }
}

mod scopes {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn message(payload: &(dyn Any + Send)) -> Option<&str> {
        payload.downcast_ref::<&str>().copied()
    }

    #[test]
    fn with_a_panicking_thread_that_nobody_joins_panic() {
        among_several_workers(|| {
            let finished = AtomicUsize::new(0);
            let scope = catch_unwind(AssertUnwindSafe(|| {
                uthread::scope(|s| {
                    s.spawn(|| Expected::panic(1));
                    for _ in 0..20 {
                        s.spawn(|| {
                            uthread::yield_now();
                            finished.fetch_add(1, Relaxed);
                        });
                    }
                })
            }));
            assert_eq!(message(&*scope.unwrap_err()), Some("a scoped thread panicked"));
            assert_eq!(finished.load(Relaxed), 20, "the scope ended before its threads");
        });
    }

    #[test]
    fn with_a_panicking_thread_that_is_joined_go_on() {
        among_several_workers(|| {
            let number = uthread::scope(|s| {
                let thread = s.spawn(|| {
                    migrate();
                    Expected::panic(4)
                });
                Expected::in_payload(thread.join().unwrap_err())
            });
            assert_eq!(number, 4);
        });
    }

    #[test]
    fn that_panic_themselves_wait_for_their_threads_first() {
        among_several_workers(|| {
            let finished = AtomicUsize::new(0);
            let scope = catch_unwind(AssertUnwindSafe(|| {
                uthread::scope(|s| {
                    for _ in 0..20 {
                        s.spawn(|| {
                            uthread::sleep(Duration::from_millis(1));
                            finished.fetch_add(1, Relaxed);
                        });
                    }
                    Expected::panic(5)
                })
            }));
            assert_eq!(Expected::in_payload(scope.unwrap_err()), 5);
            assert_eq!(finished.load(Relaxed), 20);
        });
    }

    #[test]
    fn may_nest_and_panic_at_every_level() {
        fn nest(depth: usize) {
            if depth > 0 {
                uthread::scope(|s| {
                    let left = s.spawn(move || nest(depth - 1));
                    let right = s.spawn(move || nest(depth - 1));
                    for child in [left, right] {
                        assert_eq!(Expected::in_payload(child.join().unwrap_err()), depth - 1);
                    }
                });
            }
            Expected::panic(depth)
        }
        among_several_workers(|| {
            let nested = catch_unwind(|| nest(6));
            assert_eq!(Expected::in_payload(nested.unwrap_err()), 6);
        });
    }

    #[test]
    fn give_results_that_borrow_from_outside() {
        among_several_workers(|| {
            let words: Vec<String> = (0..100).map(|i| format!("word {i}")).collect();
            let mut lengths = vec![0; words.len()];
            let longest: &str = uthread::scope(|s| {
                let threads: Vec<_> = words
                    .iter()
                    .zip(&mut lengths)
                    .map(|(word, length)| {
                        s.spawn(move || {
                            uthread::yield_now();
                            *length = word.len();
                            word.as_str()
                        })
                    })
                    .collect();
                let words = threads.into_iter().map(|t| t.join().unwrap());
                words.max_by_key(|w| w.len()).unwrap()
            });
            assert_eq!(longest.len(), 7);
            assert!(lengths.iter().zip(&words).all(|(length, word)| *length == word.len()));
        });
    }

    /// A result that uses what it borrows when it is dropped, and takes its time.
    struct Borrowing<'a> {
        scope_over: &'a AtomicBool,
        dropped: &'a AtomicUsize,
        too_late: &'static AtomicUsize,
    }

    impl Drop for Borrowing<'_> {
        fn drop(&mut self) {
            for _ in 0..10 {
                std::thread::yield_now();
            }
            if self.scope_over.load(Relaxed) {
                self.too_late.fetch_add(1, Relaxed);
            }
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// A scope whose thread ends, and then its handle without having been joined.
    fn scope_with_a_result_that_nobody_takes(wait: fn()) {
        static TOO_LATE: AtomicUsize = AtomicUsize::new(0);
        // On the heap for good, so that a result that outlives its scope can tell.
        let scope_over: &'static AtomicBool = Box::leak(Box::default());
        let dropped: &'static AtomicUsize = Box::leak(Box::default());
        uthread::scope(|s| {
            let thread = s.spawn(|| Borrowing { scope_over, dropped, too_late: &TOO_LATE });
            while !thread.is_finished() {
                wait();
            }
            drop(thread);
        });
        scope_over.store(true, Relaxed);
        assert_eq!(dropped.load(Relaxed), 1, "the result outlives its scope");
        assert_eq!(TOO_LATE.load(Relaxed), 0);
    }

    #[test]
    fn end_after_the_results_that_nobody_took_are_dropped() {
        const ROUNDS: usize = 30_000;
        among_several_workers(|| {
            for _ in 0..ROUNDS {
                scope_with_a_result_that_nobody_takes(uthread::yield_now);
            }
        });
        for _ in 0..ROUNDS {
            scope_with_a_result_that_nobody_takes(std::hint::spin_loop);
        }
    }
}
