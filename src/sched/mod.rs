//! Which green thread runs next: policy as a plain value.
//!
//! Nothing here knows an operating system, a clock, an atomic or a pointer: a queue is told what
//! became runnable and answers what to run and what to give away. `worker` obeys, under a lock of its
//! own.
//!
//! **Policy.** First in, first out, per worker. A thread that yields goes to the end, so that a
//! thread that spins on `yield_now` never keeps others from running, new ones included. A worker
//! without work takes half of another's queue, from the front: those that have waited longest run
//! first wherever they run.

use std::collections::VecDeque;

/// Threads that one theft takes at most: enough to feed the thief for a while, few enough to be
/// moved in a microsecond under the victim's lock.
pub(crate) const MOST_STOLEN: usize = 256;

/// The runnable threads of one worker.
#[derive(Debug)]
pub(crate) struct RunQueue<T> {
    threads: VecDeque<T>,
}

impl<T> RunQueue<T> {
    /// An empty queue.
    pub(crate) const fn new() -> RunQueue<T> {
        RunQueue { threads: VecDeque::new() }
    }

    /// Number of runnable threads.
    pub(crate) fn len(&self) -> usize {
        self.threads.len()
    }

    /// A thread became runnable.
    #[inline]
    pub(crate) fn push(&mut self, thread: T) {
        self.threads.push_back(thread);
    }

    /// The thread to run now.
    #[inline]
    #[must_use = "a thread that is taken out and not run is lost"]
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.threads.pop_front()
    }

    /// The thread that is likely to run after the next one.
    #[inline]
    pub(crate) fn peek(&self) -> Option<&T> {
        self.threads.front()
    }

    /// Ends a thread's turn: the one in front is taken out and shown to `taken`, and only then goes the
    /// old one to the end of the queue. The old one comes back if there is no other. Never allocates.
    #[inline]
    #[must_use = "the queue holds the old thread now and lacks the new one"]
    pub(crate) fn rotate(&mut self, thread: T, taken: impl FnOnce(&T)) -> T {
        let Some(next) = self.threads.pop_front() else { return thread };
        taken(&next);
        self.threads.push_back(thread);
        next
    }

    /// Moves half of the threads that are `movable`, rounded up, from the front to `thief`.
    pub(crate) fn steal_into(&mut self, thief: &mut Vec<T>, movable: impl Fn(&T) -> bool) {
        let candidates = self.threads.iter().filter(|t| movable(t)).count();
        let take = candidates.div_ceil(2).min(MOST_STOLEN);
        if take == 0 {
            return;
        }
        if candidates == self.threads.len() {
            thief.extend(self.threads.drain(..take));
            return;
        }
        let mut taken = 0;
        for _ in 0..self.threads.len() {
            let Some(thread) = self.threads.pop_front() else { break };
            if taken < take && movable(&thread) {
                thief.push(thread);
                taken += 1;
            } else {
                self.threads.push_back(thread);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_thread_alone_keeps_its_turn() {
        let mut q = RunQueue::new();
        assert_eq!(q.rotate(1, |_| panic!("there is no other")), 1);
        assert_eq!(q.len(), 0);
    }

    #[test]
    fn yielding_goes_behind_all_others() {
        let mut q = RunQueue::new();
        q.push(2);
        q.push(3);
        assert_eq!(q.rotate(1, |next| assert_eq!(*next, 2)), 2);
        assert_eq!([q.pop(), q.pop(), q.pop()], [Some(3), Some(1), None]);
    }

    proptest! {
        #[test]
        fn stealing_loses_and_duplicates_nothing_and_keeps_the_order(
            n in 0_usize..600, pinned in proptest::collection::vec(any::<bool>(), 600),
        ) {
            let mut q = RunQueue::new();
            (0..n).for_each(|i| q.push(i));
            let mut stolen = Vec::new();
            q.steal_into(&mut stolen, |i| !pinned[*i]);
            let candidates = (0..n).filter(|i| !pinned[*i]).count();
            prop_assert_eq!(stolen.len(), candidates.div_ceil(2).min(MOST_STOLEN));
            prop_assert!(stolen.iter().all(|i| !pinned[*i]));
            prop_assert!(stolen.is_sorted());
            let mut left: Vec<usize> = std::iter::from_fn(|| q.pop()).collect();
            prop_assert!(left.is_sorted());
            left.extend(stolen);
            left.sort_unstable();
            prop_assert_eq!(left, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn rotating_serves_every_thread_once_per_round(n in 1_usize..50, rounds in 1_usize..5) {
            let mut q = RunQueue::new();
            (1..n).for_each(|i| q.push(i));
            let mut running = 0;
            for turn in 0..n * rounds {
                prop_assert_eq!(running, turn % n);
                running = q.rotate(running, |_| ());
            }
        }
    }
}
