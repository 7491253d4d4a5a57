//! How many helpers there are, and who may count on one: see [`helper`](super::helper).

use crate::atomic::{AtomicUsize, Ordering, fence};

/// Helpers that are started before it is asked again how many are wanted: some milliseconds' work.
const STARTED_AT_ONCE: usize = 64;

/// Counts of a runtime's helpers.
pub(super) struct Claims {
    /// Helpers that wait and are not claimed.
    idle: AtomicUsize,
    /// Times that a thread found none since the monitor looked.
    wanted: AtomicUsize,
    /// Helpers that exist.
    count: AtomicUsize,
    /// Those of them that have not begun to wait.
    starting: AtomicUsize,
    most: usize,
}

/// What a helper that waits has heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// It took one ring off the bell.
    pub(super) ring: bool,
    /// Nothing has happened for a while.
    pub(super) long_silence: bool,
}

impl Claims {
    pub(super) fn new(most: usize) -> Claims {
        Claims {
            idle: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            starting: AtomicUsize::new(0),
            most,
        }
    }

    /// Helpers that exist.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Those that are to be rung for when the runtime has ended. One that is missing here sees in
    /// [`Claims::wait`] that it has.
    pub(super) fn count_at_the_end(&self) -> usize {
        fence(Ordering::SeqCst);
        self.count()
    }

    /// Whether there may be more helpers than there are.
    pub(super) fn may_grow(&self) -> bool {
        self.count() < self.most
    }

    /// Another one is about to be started; its number. Called by the monitor alone.
    pub(super) fn begins(&self) -> usize {
        self.starting.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// One has started, or was not to be.
    pub(super) fn has_begun(&self) {
        self.starting.fetch_sub(1, Ordering::Relaxed);
    }

    /// One has ended, or was not started.
    pub(super) fn ends(&self) {
        // Pairs with `are_busy`: who misses it among those that exist, misses it among the idle ones.
        self.count.fetch_sub(1, Ordering::Release);
    }

    /// A thread found no helper.
    pub(super) fn want_one(&self) {
        self.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many helpers are to be started, besides those that will soon be idle, or are; some at a time.
    pub(super) fn take_wishes(&self) -> usize {
        let room = self.most.saturating_sub(self.count());
        let coming = self.starting.load(Ordering::Relaxed) + self.idle.load(Ordering::Relaxed);
        let wanted = self.wanted.swap(0, Ordering::Relaxed).saturating_sub(coming);
        wanted.min(room).min(STARTED_AT_ONCE)
    }

    /// Forgets what was wanted. A thread that finds none says so at each of its turns, so that most wishes that came while
    /// helpers were started are of those that have one now; who has none says so again.
    pub(super) fn forget_wishes(&self) {
        self.wanted.store(0, Ordering::Relaxed);
    }

    /// Whether a helper could be claimed.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// Claims an idle helper: the caller owes a thread and a ring.
    #[must_use = "a helper that is claimed waits for a ring"]
    pub(super) fn claim(&self) -> bool {
        // The queue's lock and the bell order what follows.
        let less = |idle: usize| idle.checked_sub(1);
        self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Whether a thread is on a helper, or on its way to one, or wants one. Exact for the monitor, but for what
    /// changes meanwhile.
    pub(super) fn are_busy(&self) -> bool {
        self.count.load(Ordering::Acquire) > self.idle.load(Ordering::Relaxed)
            || self.wanted.load(Ordering::Relaxed) > 0
    }

    /// A helper waits until it has something to `take`: it does so at each ring. `None` when it shall end.
    pub(super) fn wait<T>(
        &self,
        has_ended: impl Fn() -> bool,
        mut listen: impl FnMut() -> Heard,
        take: impl Fn() -> Option<T>,
    ) -> Option<T> {
        self.idle.fetch_add(1, Ordering::Relaxed);
        // Pairs with the one in `count_at_the_end`.
        fence(Ordering::SeqCst);
        let mut impatient = false;
        loop {
            // Whoever ends the runtime rings for all helpers that exist by then. If all who wait are
            // claimed, there is a ring to come.
            if (impatient || has_ended()) && self.claim() {
                return None;
            }
            let heard = listen();
            impatient = heard.long_silence;
            if heard.ring {
                // When the runtime ends it rings for nobody.
                if let Some(taken) = take() {
                    return Some(taken);
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomic::AtomicBool;
    use crate::lock::SpinLock;
    use loom::sync::Arc;
    use loom::thread;

    struct World {
        claims: Claims,
        queue: SpinLock<Vec<u32>>,
        /// Stands for the eventfd, a semaphore; whoever reads it sees what was done before it was written.
        bell: AtomicUsize,
        ended: AtomicBool,
    }

    fn world(helpers: usize) -> Arc<World> {
        let claims = Claims::new(helpers);
        for _ in 0..helpers {
            claims.begins();
        }
        Arc::new(World {
            claims,
            queue: SpinLock::new(Vec::new()),
            bell: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    impl World {
        fn ring(&self) {
            self.bell.fetch_add(1, Ordering::Release);
        }

        fn hears_ring(&self) -> bool {
            let less = |rings: usize| rings.checked_sub(1);
            self.bell.fetch_update(Ordering::Acquire, Ordering::Relaxed, less).is_ok()
        }

        /// As `Helpers::submit`.
        fn submit(&self, thread: u32) -> bool {
            let claimed = self.claims.claim();
            if claimed {
                self.queue.with(|q| q.push(thread));
                self.ring();
            }
            claimed
        }

        /// A helper that has no patience.
        fn next(&self) -> Option<u32> {
            let listen = || {
                let ring = self.hears_ring();
                if !ring {
                    thread::yield_now();
                }
                Heard { ring, long_silence: !ring }
            };
            self.claims.wait(|| false, listen, || self.queue.with(Vec::pop))
        }
    }

    #[test]
    fn a_claimed_helper_takes_the_thread_before_it_ends() {
        loom::model(|| {
            let w = world(1);
            let helper = w.clone();
            let helper = thread::spawn(move || helper.next());
            let claimed = w.submit(7);
            assert_eq!(helper.join().unwrap(), claimed.then_some(7), "on its way to nobody");
            assert!(!w.claims.has_idle());
        });
    }

    #[test]
    fn of_two_that_claim_one_helper_one_hands_over() {
        loom::model(|| {
            let w = world(1);
            let (helper, other) = (w.clone(), w.clone());
            let helper = thread::spawn(move || helper.next());
            let other = thread::spawn(move || other.submit(8));
            let (here, there) = (w.submit(7), other.join().unwrap());
            let expected = here.then_some(7).or(there.then_some(8));
            assert!(!(here && there), "claimed twice");
            assert_eq!(helper.join().unwrap(), expected, "on its way to nobody");
        });
    }

    /// A runtime that closes rings while threads are still handed over.
    #[test]
    fn rings_for_nobody_leave_nobody_behind() {
        loom::model(|| {
            let w = world(2);
            let helpers = [w.clone(), w.clone()].map(|w| thread::spawn(move || w.next()));
            w.ring();
            let claimed = w.submit(7);
            let taken = helpers.map(|helper| helper.join().unwrap());
            let expected = usize::from(claimed);
            assert_eq!(taken.iter().flatten().count(), expected, "on its way to nobody");
            assert!(!w.claims.has_idle());
        });
    }

    #[test]
    fn a_helper_that_is_started_at_the_end_is_rung_for_or_sees_it() {
        loom::model(|| {
            let w = world(0);
            let ender = w.clone();
            let ender = thread::spawn(move || {
                ender.ended.store(true, Ordering::Relaxed);
                (0..ender.claims.count_at_the_end()).for_each(|_| ender.ring());
            });
            w.claims.begins();
            let mut heard_nothing = false;
            let listen = || {
                let ring = w.hears_ring();
                heard_nothing |= !ring;
                Heard { ring, long_silence: !ring }
            };
            let has_ended = || w.ended.load(Ordering::Relaxed);
            assert_eq!(w.claims.wait(has_ended, listen, || None::<u32>), None);
            ender.join().unwrap();
            let ring_to_come = w.bell.load(Ordering::Relaxed) > 0;
            assert!(!heard_nothing || ring_to_come, "it sleeps on after the end");
        });
    }

    #[test]
    fn while_a_thread_is_on_one_helper_the_end_of_another_does_not_hide_it() {
        loom::model(|| {
            let w = world(2);
            w.claims.idle.store(1, Ordering::Relaxed);
            let other = w.clone();
            let other = thread::spawn(move || {
                assert!(other.claims.claim());
                other.claims.ends();
            });
            assert!(w.claims.are_busy());
            other.join().unwrap();
        });
    }
}
