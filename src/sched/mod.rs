//! Which green thread runs next: policy as a plain value.
//!
//! Nothing here knows an operating system, a clock, an atomic or a pointer: a queue is told what
//! became runnable and answers what to run and what to give away. `worker` obeys, under a lock of its
//! own.
//!
//! **Policy.** Two levels per worker, each first in, first out. Threads that were spawned, woken, or have
//! yielded are **fresh**: a thread that spins on `yield_now` never keeps others from running, new ones
//! included. Threads that were interrupted because they computed for long are **spent**: they run when no
//! fresh one waits, so that a thread that wakes up does not wait for as many slices as there are hogs. One
//! whose slice was not used up goes on before the other spent ones.
//!
//! **Bounds.** Lest fresh threads starve the spent ones, the queue is told when a slice of time has passed
//! ([`RunQueue::slice_passed`]). If no spent thread was taken out since the last time, one is **due** and
//! comes next. So a spent thread waits for at most two slices of fresh threads for each spent one in
//! front of it; a fresh one waits for those in front of it, and for one slice of a spent one per slice.
//!
//! **Stealing.** A worker without work takes half of another's queue, fresh ones first, from the front: those
//! that have waited longest run first wherever they run.
//!
//! Queues are lists through the threads themselves ([`Link`]): to queue a thread never allocates, which is
//! more than a saving (see `preempt::pin`).

/// Threads that one theft takes at most: enough to feed the thief for a while, few enough to be
/// moved in a microsecond under the victim's lock.
pub(crate) const MOST_STOLEN: usize = 256;

/// What a thread that can be queued has: room for the name of the next one. It is in one list at a time.
pub(crate) trait Link: Copy + Eq {
    /// What was set last.
    fn next(self) -> Option<Self>;
    /// Sets the next one.
    fn set_next(self, next: Option<Self>);
}

/// A list of threads, first in, first out.
#[derive(Debug)]
struct Line<T> {
    /// The first and the last.
    ends: Option<(T, T)>,
    length: usize,
}

impl<T: Link> Line<T> {
    const fn new() -> Line<T> {
        Line { ends: None, length: 0 }
    }

    fn front(&self) -> Option<T> {
        self.ends.map(|(first, _)| first)
    }

    #[inline]
    fn push_back(&mut self, thread: T) {
        thread.set_next(None);
        self.length += 1;
        self.ends = match self.ends {
            None => Some((thread, thread)),
            Some((first, last)) => {
                last.set_next(Some(thread));
                Some((first, thread))
            }
        };
    }

    fn push_front(&mut self, thread: T) {
        thread.set_next(self.front());
        self.length += 1;
        self.ends = Some((thread, self.ends.map_or(thread, |(_, last)| last)));
    }

    #[inline]
    fn pop_front(&mut self) -> Option<T> {
        let (first, last) = self.ends?;
        self.length -= 1;
        self.ends = first.next().filter(|_| first != last).map(|second| (second, last));
        Some(first)
    }
}

/// The runnable threads of one worker.
#[derive(Debug)]
pub(crate) struct RunQueue<T> {
    fresh: Line<T>,
    spent: Line<T>,
    /// No spent thread was taken out since the last slice passed.
    neglected: bool,
    /// A spent thread is to be taken out next.
    due: bool,
    /// The last one taken out was such.
    took_due: bool,
}

impl<T: Link> RunQueue<T> {
    /// An empty queue.
    pub(crate) const fn new() -> RunQueue<T> {
        RunQueue {
            fresh: Line::new(),
            spent: Line::new(),
            neglected: false,
            due: false,
            took_due: false,
        }
    }

    /// Number of runnable threads.
    pub(crate) fn len(&self) -> usize {
        self.fresh.length + self.spent.length
    }

    /// Number of those that are fresh.
    pub(crate) fn fresh_len(&self) -> usize {
        self.fresh.length
    }

    /// A thread became runnable.
    #[inline]
    pub(crate) fn push(&mut self, thread: T) {
        self.fresh.push_back(thread);
    }

    /// A thread was interrupted, with or without having used up its slice.
    pub(crate) fn push_interrupted(&mut self, thread: T, used_up: bool) {
        if used_up {
            self.spent.push_back(thread);
        } else {
            self.spent.push_front(thread);
        }
    }

    /// The thread to run now.
    #[inline]
    #[must_use = "a thread that is taken out and not run is lost"]
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.took_due = false;
        if !self.due
            && let Some(thread) = self.fresh.pop_front()
        {
            return Some(thread);
        }
        self.pop_spent()
    }

    #[cold]
    fn pop_spent(&mut self) -> Option<T> {
        let due = std::mem::take(&mut self.due);
        let Some(thread) = self.spent.pop_front() else { return self.fresh.pop_front() };
        self.neglected = false;
        self.took_due = due && self.fresh.length > 0;
        Some(thread)
    }

    /// The thread that is likely to run after the next one.
    #[inline]
    pub(crate) fn peek(&self) -> Option<T> {
        self.fresh.front()
    }

    /// Ends the turn of a thread that yields: the next one is taken out and shown to `taken`, and only then goes
    /// the old one to the end of the fresh ones. The old one comes back if there is no other.
    #[inline]
    #[must_use = "the queue holds the old thread now and lacks the new one"]
    pub(crate) fn rotate(&mut self, thread: T, taken: impl FnOnce(T)) -> T {
        let Some(next) = self.pop() else { return thread };
        taken(next);
        self.fresh.push_back(thread);
        next
    }

    /// A slice of time has passed in which threads waited.
    pub(crate) fn slice_passed(&mut self) {
        self.due = self.neglected && self.spent.length > 0;
        self.neglected = self.spent.length > 0;
    }

    /// Whether the last thread taken out was spent, and was due although fresh ones waited: those have had
    /// their slice, and do not end its turn.
    pub(crate) fn took_due(&self) -> bool {
        self.took_due
    }

    /// Moves half of the threads that are `movable`, rounded up, from the front to `thief`; never more
    /// than it has spare capacity for.
    pub(crate) fn steal_into(&mut self, thief: &mut Vec<T>, movable: impl Fn(T) -> bool) {
        let most = MOST_STOLEN.min(thief.capacity() - thief.len());
        // Fresh and spent ones are counted together, and the fresh ones taken first.
        let mut take = self.len().div_ceil(2).min(most);
        for line in [&mut self.fresh, &mut self.spent] {
            for _ in 0..line.length {
                if take == 0 {
                    return;
                }
                let Some(thread) = line.pop_front() else { break };
                if movable(thread) {
                    thief.push(thread);
                    take -= 1;
                } else {
                    line.push_back(thread);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
