//! `Once`, `OnceLock` and `LazyLock`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Once, OnceLock};

use crate::cast::{Member, at_once, eventually, is_up, join_all, panic, panics, raise};

/// Something to initialise that takes as long as somebody wants.
#[derive(Default)]
struct Slow {
    begun: std::sync::atomic::AtomicBool,
    may_end: std::sync::atomic::AtomicBool,
    runs: AtomicUsize,
}

impl Slow {
    fn run(&self) {
        raise(&self.begun);
        eventually(|| is_up(&self.may_end));
        // Others see it, by the orderings of what is tested.
        self.runs.store(self.runs.load(Relaxed) + 1, Relaxed);
    }

    fn until_begun(&self) {
        eventually(|| is_up(&self.begun));
    }

    fn end(&self) {
        raise(&self.may_end);
    }

    fn runs(&self) -> usize {
        self.runs.load(Relaxed)
    }
}

scenarios! {
    fn one_runs_it_and_all_others_wait_until_it_is_done(cast) {
        let (once, slow) = (Once::new(), Slow::default());
        cast.scope(|crew| {
            let runs = crew.spawn(|| once.call_once(|| slow.run()));
            slow.until_begun();
            let others = [(); 3].map(|()| {
                crew.spawn_waiting(|| {
                    once.call_once(|| panic!("twice"));
                    slow.runs()
                })
            });
            assert!(!once.is_completed());
            slow.end();
            runs.join();
            assert_eq!(others.map(|o| o.join()), [1; 3]);
            assert!(once.is_completed());
            once.call_once_force(|_| panic!("twice"));
        });
    }

    fn of_many_at_once_one_runs_it(cast) {
        cast.scope(|crew| {
            for _ in 0..20 {
                let once = std::sync::Arc::new((Once::new(), AtomicUsize::new(0)));
                let members = (0..5).map(|_| {
                    let once = once.clone();
                    crew.spawn(move || {
                        once.0.call_once(|| {
                            std::thread::yield_now();
                            once.1.store(once.1.load(Relaxed) + 1, Relaxed);
                        });
                        once.1.load(Relaxed)
                    })
                });
                assert_eq!(join_all(members.collect()), [1; 5]);
            }
        });
    }

    fn a_panic_poisons_and_reaches_those_who_wait(cast) {
        let (once, slow) = (Once::new(), Slow::default());
        cast.scope(|crew| {
            let fails = crew.spawn(|| {
                once.call_once(|| {
                    slow.run();
                    panic();
                });
            });
            slow.until_begun();
            let others = [(); 3].map(|()| crew.spawn_waiting(|| once.call_once(|| panic!("it is poisoned"))));
            slow.end();
            assert!(fails.outcome().is_err());
            assert!(others.into_iter().all(|o| o.outcome().is_err()));
            assert!(!once.is_completed());
            assert!(panics(|| once.call_once(|| ())));
        });
    }

    fn a_poisoned_one_can_be_run_by_force(cast) {
        let once = Once::new();
        cast.scope(|crew| {
            assert!(crew.spawn(|| once.call_once(|| panic())).outcome().is_err());
            // If it fails again, it stays poisoned.
            let fails = crew.spawn(|| {
                once.call_once_force(|state| {
                    assert!(state.is_poisoned());
                    panic();
                });
            });
            assert!(fails.outcome().is_err());
            let slow = std::sync::Arc::new(Slow::default());
            let theirs = slow.clone();
            let runs = crew.spawn(|| {
                once.call_once_force(move |state| {
                    assert!(state.is_poisoned());
                    theirs.run();
                });
            });
            slow.until_begun();
            let waits = crew.spawn_waiting(|| once.call_once(|| panic!("twice")));
            slow.end();
            runs.join();
            waits.join();
            assert!(once.is_completed());
        });
    }

    fn who_only_waits_runs_nothing(cast) {
        let (once, slow) = (Once::new(), Slow::default());
        cast.scope(|crew| {
            let waiting = [
                crew.spawn_waiting(|| once.wait()),
                crew.spawn_waiting(|| once.wait_force()),
            ];
            let runs = crew.spawn(|| once.call_once(|| slow.run()));
            slow.until_begun();
            assert!(!waiting.iter().any(Member::is_finished));
            slow.end();
            runs.join();
            waiting.into_iter().for_each(|w| w.join());
            at_once(|| (once.wait(), once.wait_force()));
        });
    }

    fn who_only_waits_for_what_fails_is_told_or_waits_on(cast) {
        let (once, slow) = (Once::new(), Slow::default());
        cast.scope(|crew| {
            let fails = crew.spawn(|| {
                once.call_once(|| {
                    slow.run();
                    panic();
                });
            });
            slow.until_begun();
            let told = crew.spawn_waiting(|| once.wait());
            let waits_on = crew.spawn_waiting(|| once.wait_force());
            slow.end();
            assert!(fails.outcome().is_err());
            assert!(told.outcome().is_err());
            assert!(panics(|| once.wait()));
            let another = crew.spawn_waiting(|| once.wait_force());
            assert!(!waits_on.is_finished());
            crew.spawn(|| once.call_once_force(|_| ())).join();
            waits_on.join();
            another.join();
        });
    }

    fn one_initialises_a_cell_and_the_others_wait_for_its_value(cast) {
        let (cell, slow) = (OnceLock::new(), Slow::default());
        cast.scope(|crew| {
            let initialises = crew.spawn(|| {
                *cell.get_or_init(|| {
                    slow.run();
                    7
                })
            });
            slow.until_begun();
            let others = [(); 2].map(|()| crew.spawn_waiting(|| *cell.get_or_init(|| panic!("twice"))));
            let sets = crew.spawn_waiting(|| cell.set(8).unwrap_err());
            let waits = crew.spawn_waiting(|| *cell.wait());
            // This never waits.
            assert_eq!(at_once(|| cell.get()), None);
            slow.end();
            assert_eq!((initialises.join(), sets.join(), waits.join()), (7, 8, 7));
            assert_eq!(others.map(|o| o.join()), [7; 2]);
            assert_eq!(cell.get(), Some(&7));
        });
        assert_eq!(cell.into_inner(), Some(7));
    }

    fn who_waits_for_a_cell_is_woken_when_it_is_set(cast) {
        let mut cell = OnceLock::new();
        cast.scope(|crew| {
            let waiting = [(); 3].map(|()| crew.spawn_waiting(|| *cell.wait()));
            assert_eq!(crew.spawn(|| cell.set(3)).join(), Ok(()));
            assert_eq!(waiting.map(|w| w.join()), [3; 3]);
            assert_eq!(crew.spawn(|| cell.set(4)).join(), Err(4));
        });
        assert_eq!(cell.take(), Some(3));
        assert_eq!(cell.get(), None);
    }

    fn a_cell_whose_initialisation_panics_stays_empty_and_another_one_initialises_it(cast) {
        let (cell, slow) = (OnceLock::new(), Slow::default());
        cast.scope(|crew| {
            let fails = crew.spawn(|| {
                cell.get_or_init(|| {
                    slow.run();
                    panic();
                });
            });
            slow.until_begun();
            let values: Vec<_> = (0..3)
                .map(|_| {
                    crew.spawn_waiting(|| {
                        *cell.get_or_init(|| {
                            slow.runs.fetch_add(1, Relaxed);
                            9
                        })
                    })
                })
                .collect();
            let waits = crew.spawn_waiting(|| *cell.wait());
            slow.end();
            assert!(fails.outcome().is_err());
            assert_eq!(join_all(values), [9; 3]);
            assert_eq!(waits.join(), 9);
            assert_eq!(slow.runs(), 2);
        });
    }

    fn one_computes_a_lazy_value_and_the_others_wait_for_it(cast) {
        let slow = Slow::default();
        let lazy = LazyLock::new(|| {
            slow.run();
            slow.runs()
        });
        cast.scope(|crew| {
            let first = crew.spawn(|| *lazy);
            slow.until_begun();
            let others = [crew.spawn_waiting(|| *lazy), crew.spawn_waiting(|| *LazyLock::force(&lazy))];
            slow.end();
            assert_eq!(first.join(), 1);
            assert_eq!(others.map(|o| o.join()), [1; 2]);
        });
    }

    fn a_lazy_value_whose_computation_panics_is_poisoned_for_good(cast) {
        let slow = Slow::default();
        let lazy: LazyLock<u32, _> = LazyLock::new(|| {
            slow.run();
            panic()
        });
        cast.scope(|crew| {
            let fails = crew.spawn(|| *lazy);
            slow.until_begun();
            let others = [(); 2].map(|()| crew.spawn_waiting(|| *lazy));
            slow.end();
            assert!(fails.outcome().is_err());
            assert!(others.into_iter().all(|o| o.outcome().is_err()));
            assert!(panics(|| *LazyLock::force(&lazy)));
            assert_eq!(slow.runs(), 1);
        });
    }

    fn initialisations_may_wait_for_others(cast) {
        let cells: Vec<OnceLock<usize>> = (0..6).map(|_| OnceLock::new()).collect();
        fn value(cells: &[OnceLock<usize>], i: usize) -> usize {
            *cells[i].get_or_init(|| {
                std::thread::yield_now();
                if i == 0 { 1 } else { value(cells, i - 1) + 1 }
            })
        }
        cast.scope(|crew| {
            let cells = &cells;
            let values = crew.spawn_all(6, move |i| value(cells, 5 - i));
            assert_eq!(join_all(values), [6, 5, 4, 3, 2, 1]);
        });
    }
}
