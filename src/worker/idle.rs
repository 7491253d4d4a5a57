//! When workers sleep, and who wakes them.
//!
//! **Problem.** A worker without work must burn nothing, yet no thread may be runnable and unserved
//! while a worker sleeps; and waking one costs 40–50 µs on a virtual machine, thirty times a switch.
//!
//! **Choice.** A worker that finds nothing says so ([`Idle::announce`]), looks once more, and only then
//! sleeps in its ring. Whoever makes a thread runnable in the queue of a worker that may sleep wakes
//! that worker ([`Idle::wake`]). Whoever lengthens its own queue beyond the one thread that it will
//! run next sends a sleeper to search ([`Idle::send_searcher`]), one at a time: while one is on its
//! way, further ones are not woken, and the one that finds work sends the next.
//!
//! **No wake-up is lost.** Name the events. The sleeper: *A*, its state becomes `ASLEEP`; *F₁*, a
//! sequentially consistent fence; *Q*, it looks at the queues. The other side: *P*, it pushes to a
//! queue; *F₂*, a fence; *S*, it looks at the sleeper's state. F₁ and F₂ are ordered one way or the
//! other. If F₁ is before F₂, S sees `ASLEEP` and wakes. If F₂ is before F₁, Q sees what was pushed and
//! does not sleep. The same argument holds with "a searcher is on its way" in the place of the state:
//! the searcher ends its search (its own *A*) before it looks for the last time (*Q*), and if it then
//! has found work itself, sends the next to what it sees.
//!
//! What this leaves open is one thread queued behind one that runs for long, since for a single thread
//! nobody is woken. Of the sleeping workers, one therefore is the watcher: while any worker is awake it
//! sleeps for a bounded time only ([`WATCH_FIRST`], doubling up to [`WATCH_LAST`]) and takes what
//! waits. When all sleep, nobody watches; the first one that then queues a single thread sends a
//! sleeper, who finds nothing or takes it, and has the watch.

use std::time::Duration;

use crate::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// How soon the watcher looks for the first time.
pub(crate) const WATCH_FIRST: Duration = Duration::from_millis(1);
/// How long it sleeps after having found nothing for some time: the bound on how long a thread waits
/// behind a single busy one while a worker sleeps.
pub(crate) const WATCH_LAST: Duration = Duration::from_millis(8);

const AWAKE: usize = 0;
const ASLEEP: usize = 1;
/// Awake by [`Idle::send_searcher`], counted in `searching`.
const SENT: usize = 2;

/// One worker's part.
#[derive(Debug)]
pub(crate) struct Sleeper {
    state: AtomicUsize,
}

impl Sleeper {
    pub(crate) fn new() -> Sleeper {
        Sleeper { state: AtomicUsize::new(AWAKE) }
    }

    /// Whether it seems to sleep; a hint.
    pub(crate) fn seems_asleep(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ASLEEP
    }
}

/// What all workers of a runtime share.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Workers that are `ASLEEP`.
    sleeping: AtomicUsize,
    /// Sleepers woken to search that have neither found anything nor given up.
    searching: AtomicUsize,
    /// A watcher is on duty.
    watched: AtomicBool,
}

impl Idle {
    pub(crate) fn new() -> Idle {
        Idle {
            sleeping: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
        }
    }

    /// The calling worker is about to sleep. It must look at all queues once more before it does, and
    /// call [`Idle::awake`] in either case.
    pub(crate) fn announce(&self, own: &Sleeper) {
        self.sleeping.fetch_add(1, Ordering::Relaxed);
        own.state.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The calling worker is awake; whether it was sent to search, and must call
    /// [`Idle::search_ended`].
    pub(crate) fn awake(&self, own: &Sleeper) -> bool {
        match own.state.swap(AWAKE, Ordering::Acquire) {
            ASLEEP => {
                self.sleeping.fetch_sub(1, Ordering::Relaxed);
                false
            }
            state => state == SENT,
        }
    }

    /// To be called after pushing to the queue of a worker that may be asleep; whether it must be
    /// woken out of its ring now.
    #[must_use = "a sleeper that is marked awake must be woken"]
    pub(crate) fn wake(&self, other: &Sleeper) -> bool {
        fence(Ordering::SeqCst);
        self.rouse(other, AWAKE)
    }

    /// To be called after lengthening one's own queue; the sleeper that must be woken out of its ring
    /// now, if another worker is needed.
    #[must_use = "a sleeper that is marked awake must be woken"]
    pub(crate) fn send_searcher<'a>(
        &self,
        mut sleepers: impl Iterator<Item = (usize, &'a Sleeper)>,
    ) -> Option<usize> {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) == 0
            || self.searching.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        let found = sleepers.find(|(_, s)| self.rouse(s, SENT)).map(|(i, _)| i);
        if found.is_none() {
            self.searching.fetch_sub(1, Ordering::Relaxed);
        }
        found
    }

    /// The calling worker, which was sent to search, found something or gave up. While it searched, others
    /// were not sent; so it looks at all queues once more: before it sleeps, as [`Idle::announce`] asks
    /// for, or, if it found something, now, to send the next.
    pub(crate) fn search_ended(&self) {
        self.searching.fetch_sub(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn rouse(&self, other: &Sleeper, to: usize) -> bool {
        let roused = other.seems_asleep()
            && other
                .state
                .compare_exchange(ASLEEP, to, Ordering::Release, Ordering::Relaxed)
                .is_ok();
        if roused {
            self.sleeping.fetch_sub(1, Ordering::Relaxed);
        }
        roused
    }

    /// Whether a worker that leaves a single thread queued must send a sleeper, who will take the watch.
    #[inline]
    pub(crate) fn lacks_watcher(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed) > 0 && !self.watched.load(Ordering::Relaxed)
    }

    /// Whether all of `workers` seem to sleep.
    pub(crate) fn all_sleep(&self, workers: usize) -> bool {
        self.sleeping.load(Ordering::Relaxed) == workers
    }

    /// Takes the watch if some of `workers` are awake and nobody has it.
    pub(crate) fn take_watch(&self, workers: usize) -> bool {
        self.sleeping.load(Ordering::Relaxed) < workers
            && !self.watched.swap(true, Ordering::Acquire)
    }

    pub(crate) fn leave_watch(&self) {
        self.watched.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    struct World {
        idle: Idle,
        sleeper: Sleeper,
        queue: AtomicUsize,
        /// Stands for the eventfd.
        woken: AtomicBool,
    }

    fn world() -> Arc<World> {
        Arc::new(World {
            idle: Idle::new(),
            sleeper: Sleeper::new(),
            queue: AtomicUsize::new(0),
            woken: AtomicBool::new(false),
        })
    }

    /// A worker that has found nothing; true if it would sleep for good although there is work.
    fn sleeps_on(w: &World) -> impl FnOnce() -> bool + '_ {
        w.idle.announce(&w.sleeper);
        let saw_work = w.queue.load(Ordering::Relaxed) > 0;
        move || !saw_work && w.queue.load(Ordering::Relaxed) > 0 && !w.woken.load(Ordering::Relaxed)
    }

    #[test]
    fn a_push_to_a_sleepers_queue_is_seen_or_wakes_it() {
        loom::model(|| {
            let w = world();
            let pusher = w.clone();
            let thread = loom::thread::spawn(move || {
                pusher.queue.store(1, Ordering::Relaxed);
                if pusher.idle.wake(&pusher.sleeper) {
                    pusher.woken.store(true, Ordering::Relaxed);
                }
            });
            let lost = sleeps_on(&w);
            thread.join().unwrap();
            assert!(!lost(), "asleep with a thread in its queue");
        });
    }

    #[test]
    fn a_longer_queue_is_seen_or_sends_the_sleeper() {
        loom::model(|| {
            let w = world();
            let pusher = w.clone();
            let thread = loom::thread::spawn(move || {
                pusher.queue.store(1, Ordering::Relaxed);
                if pusher.idle.send_searcher([(0, &pusher.sleeper)].into_iter()).is_some() {
                    pusher.woken.store(true, Ordering::Relaxed);
                }
            });
            let lost = sleeps_on(&w);
            thread.join().unwrap();
            assert!(!lost(), "asleep beside a queue that is too long");
            let sent = w.idle.awake(&w.sleeper);
            assert_eq!(sent, w.woken.load(Ordering::Relaxed));
            if sent {
                w.idle.search_ended();
            }
            assert_eq!(w.idle.sleeping.load(Ordering::Relaxed), 0);
            assert_eq!(w.idle.searching.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_searcher_that_gives_up_sees_what_was_pushed_while_it_searched() {
        loom::model(|| {
            let w = world();
            w.idle.announce(&w.sleeper);
            assert!(w.idle.send_searcher([(0, &w.sleeper)].into_iter()).is_some());
            let pusher = w.clone();
            let thread = loom::thread::spawn(move || {
                pusher.queue.store(1, Ordering::Relaxed);
                if pusher.idle.send_searcher([(0, &pusher.sleeper)].into_iter()).is_some() {
                    pusher.woken.store(true, Ordering::Relaxed);
                }
            });
            // The searcher wakes, looks, finds nothing, and goes to sleep again.
            assert!(w.idle.awake(&w.sleeper));
            let found = w.queue.load(Ordering::Relaxed) > 0;
            w.idle.search_ended();
            let lost = sleeps_on(&w);
            thread.join().unwrap();
            assert!(found || !lost(), "asleep beside a queue that is too long");
        });
    }

    #[test]
    fn a_searcher_that_finds_work_sees_what_was_pushed_elsewhere_while_it_searched() {
        loom::model(|| {
            let w = world();
            w.idle.announce(&w.sleeper);
            assert!(w.idle.send_searcher([(0, &w.sleeper)].into_iter()).is_some());
            // Another worker sleeps meanwhile.
            let other = Arc::new(Sleeper::new());
            w.idle.announce(&other);
            let (pusher, asleep) = (w.clone(), other.clone());
            let thread = loom::thread::spawn(move || {
                pusher.queue.store(1, Ordering::Relaxed);
                pusher.idle.send_searcher([(1, &*asleep)].into_iter()).is_some()
            });
            // The searcher wakes and finds something in a third place.
            assert!(w.idle.awake(&w.sleeper));
            w.idle.search_ended();
            let sees_more = w.queue.load(Ordering::Relaxed) > 0;
            assert!(
                thread.join().unwrap() || sees_more,
                "nobody is sent to a queue that is too long"
            );
        });
    }

    #[test]
    fn of_two_wakers_one_wakes() {
        loom::model(|| {
            let w = world();
            w.idle.announce(&w.sleeper);
            let other = w.clone();
            let thread = loom::thread::spawn(move || other.idle.wake(&other.sleeper));
            let here = w.idle.wake(&w.sleeper);
            assert!(here ^ thread.join().unwrap());
            assert_eq!(w.idle.sleeping.load(Ordering::Relaxed), 0);
        });
    }
}
