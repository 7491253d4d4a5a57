//! The state of a green thread: one word, and the changes that are legal.
//!
//! ```text
//!            ┌────────────── yields, is interrupted, is notified while it parks ──┐
//!            ▼                                                                    │
//!  New ──► Queued ──────────────────────────────────────────────────────────► Running ──► Ended
//!            ▲ ▲ │                                                                │ │
//!            │ │ └── is given away by a worker that is stuck ──► Helped ◄── blocks ┘ │
//!            │ └──── needs a worker, or computes ──────────────────┘                │
//!            └────── is woken ─────────────────── Waiting ◄──── waits ──────────────┘
//! ```
//!
//! The word is written by the thread's **owner** alone, and ownership passes with the thread: whoever takes it out
//! of a queue owns it (the queue's lock hands it over), as does whoever gets it out of a park word (acquire and
//! release there), and the worker whose ring or timer reports the end of its wait. So changes need no
//! exchange, and a thread that is in two queues, or runs twice, is found out by the first illegal one. Debug
//! builds and models check every change; others may read it at any time, for reports.

use crate::atomic::{AtomicU8, Ordering};

/// What a green thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// It was created, and nobody knows of it.
    New,
    /// It is in a worker's queue.
    Queued,
    /// It is on a worker, or about to be.
    Running,
    /// Somebody will wake it: an op, a timer, a notification.
    Waiting,
    /// It is on a helper, or on its way there.
    Helped,
    /// It will not run any more.
    Ended,
}

impl State {
    const ALL: [State; 6] =
        [State::New, State::Queued, State::Running, State::Waiting, State::Helped, State::Ended];

    fn may_become(self, next: State) -> bool {
        use State::*;
        match self {
            New => next == Queued,
            Queued => matches!(next, Running | Helped),
            Running => matches!(next, Queued | Waiting | Helped | Ended),
            Waiting | Helped => next == Queued,
            Ended => false,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct StateWord(AtomicU8);

impl StateWord {
    pub(super) fn new() -> StateWord {
        StateWord(AtomicU8::new(State::New as u8))
    }

    pub(super) fn get(&self) -> State {
        State::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    /// To be called by the thread's owner; what it was before.
    #[inline]
    pub(super) fn becomes(&self, next: State) -> State {
        let before = self.get();
        if cfg!(any(debug_assertions, loom)) && !before.may_become(next) {
            panic!("a green thread that is {before:?} becomes {next:?}");
        }
        self.0.store(next as u8, Ordering::Relaxed);
        before
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_of_all_states_are_read_as_written() {
        for (index, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state as u8), index);
        }
    }

    #[test]
    fn a_life_in_all_states_is_legal_and_a_second_turn_at_a_time_is_not() {
        let word = StateWord::new();
        use State::*;
        for next in [Queued, Running, Waiting, Queued, Running, Helped, Queued, Running, Queued] {
            word.becomes(next);
            assert_eq!(word.get(), next);
        }
        assert!(!Queued.may_become(Queued), "a thread is in one queue at a time");
        assert!(!Running.may_become(Running), "a thread has one turn at a time");
        assert!(State::ALL.into_iter().all(|next| !Ended.may_become(next)));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::lock::SpinLock;
    use crate::worker::parker::Parker;
    use loom::sync::Arc;

    const WAITER: usize = 64;

    /// One thread, and what it can be handed over through. A change that does not see the one before is illegal.
    struct World {
        state: StateWord,
        queue: SpinLock<Vec<usize>>,
        parker: Parker,
    }

    fn world() -> Arc<World> {
        let w = World {
            state: StateWord::new(),
            queue: SpinLock::new(Vec::new()),
            parker: Parker::new(),
        };
        w.publish();
        assert!(w.run());
        Arc::new(w)
    }

    impl World {
        fn publish(&self) {
            self.state.becomes(State::Queued);
            self.queue.with(|q| q.push(WAITER));
        }

        /// A worker takes it out, if it is queued.
        fn run(&self) -> bool {
            let taken = self.queue.with(|q| q.pop()).is_some();
            if taken {
                self.state.becomes(State::Running);
            }
            taken
        }

        /// As `Worker::park`.
        fn park(&self) {
            self.state.becomes(State::Waiting);
            if !self.parker.commit(WAITER) {
                self.publish();
            }
        }

        fn notify(&self) {
            if self.parker.notify().is_some() {
                self.publish();
            }
        }
    }

    #[test]
    fn a_thread_is_queued_and_run_by_one_after_the_other() {
        loom::model(|| {
            let w = world();
            w.publish();
            let thief = w.clone();
            let thread = loom::thread::spawn(move || {
                if thief.run() {
                    thief.publish();
                }
            });
            if w.run() {
                w.publish();
            }
            thread.join().unwrap();
            assert!(w.run() && !w.run());
        });
    }

    #[test]
    fn a_thread_that_parks_is_made_runnable_by_its_owner_alone() {
        loom::model(|| {
            let w = world();
            let notifier = w.clone();
            let thread = loom::thread::spawn(move || notifier.notify());
            w.park();
            // Another worker, or the same.
            w.run();
            thread.join().unwrap();
            w.run();
            assert_eq!(w.state.get(), State::Running);
            assert!(w.parker.take());
        });
    }

    #[test]
    fn a_thread_whose_wait_ends_twice_is_made_runnable_once() {
        loom::model(|| {
            let w = world();
            w.park();
            let notifier = w.clone();
            let thread = loom::thread::spawn(move || notifier.notify());
            // As `Worker::expire`.
            if w.parker.withdraw(WAITER) {
                w.publish();
            }
            let runs_early = w.run();
            thread.join().unwrap();
            assert!(w.run() ^ runs_early, "it waits for good, or runs twice");
        });
    }
}
