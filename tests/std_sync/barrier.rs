//! `Barrier`.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crate::cast::{at_once, join_all};

scenarios! {
    fn nobody_passes_before_the_last_one_has_come(cast) {
        let barrier = Barrier::new(4);
        cast.scope(|crew| {
            let waiting = [(); 3].map(|()| crew.spawn_waiting(|| barrier.wait().is_leader()));
            let led = barrier.wait().is_leader();
            let leaders = waiting.map(|w| w.join()).iter().filter(|l| **l).count();
            assert_eq!(leaders + usize::from(led), 1);
        });
    }

    fn it_is_used_again_and_again_with_one_leader_each_time(cast) {
        const MEMBERS: usize = 5;
        const ROUNDS: usize = 60;
        let (barrier, arrived) = (Barrier::new(MEMBERS), AtomicUsize::new(0));
        cast.scope(|crew| {
            let (barrier, arrived) = (&barrier, &arrived);
            let leads = join_all(crew.spawn_all(MEMBERS, move |_| {
                let mut leads = 0;
                for round in 1..=ROUNDS {
                    arrived.fetch_add(1, Relaxed);
                    leads += usize::from(barrier.wait().is_leader());
                    // What was done before is seen, by whichever orderings.
                    assert_eq!(arrived.load(Relaxed), round * MEMBERS);
                    leads += usize::from(barrier.wait().is_leader());
                }
                leads
            }));
            assert_eq!(leads.iter().sum::<usize>(), 2 * ROUNDS);
        });
    }

    fn one_alone_does_not_wait(cast) {
        cast.scope(|crew| {
            for n in [0, 1] {
                let barrier = std::sync::Arc::new(Barrier::new(n));
                assert!(crew.spawn(move || at_once(|| barrier.wait().is_leader())).join());
            }
        });
    }

    fn more_than_it_takes_are_let_through_in_parts(cast) {
        let (barrier, passed) = (Barrier::new(2), AtomicUsize::new(0));
        cast.scope(|crew| {
            join_all(crew.spawn_all(8, |_| {
                barrier.wait();
                passed.fetch_add(1, SeqCst);
            }));
            let ninth = crew.spawn_waiting(|| barrier.wait().is_leader());
            assert_eq!(passed.load(SeqCst), 8);
            let led = barrier.wait().is_leader();
            assert!(led != ninth.join());
        });
    }
}
