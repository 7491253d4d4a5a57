//! The runnable threads of one worker, by groups.
//!
//! Within a group there are two levels, each first in, first out. Threads that were spawned, woken, or have
//! yielded are **fresh**: a thread that spins on `yield_now` never keeps others from running, new ones
//! included. Threads that were interrupted because they computed for long are **spent**: they run when no
//! fresh one waits, so that a thread that wakes up does not wait for as many slices as there are hogs. One
//! whose slice was not used up, which was **cut** short, goes on before the other spent ones.
//!
//! **Bounds.** Lest fresh threads starve the spent ones, the queue is told of the group's time
//! ([`RunQueue::served`]), slice by slice. If no spent thread was taken out since the last time, one is
//! **due** and comes next. So a spent thread waits for at most two slices of other threads for each spent
//! one in front of it; a fresh one waits for those in front of it, and for one slice of a spent one per slice.
//! Those that were cut short, of which the last goes first, may keep each other waiting: if there were always
//! some for a slice, they lose their precedence, and go behind the spent ones.
//!
//! **Several workers.** A group's share does not say where it is served. If it gets all of it elsewhere, its
//! threads here wait in vain: after some slices, the group counts as stranded ([`RunQueue::stranded`]), and
//! those who serve it fetch them.
//!
//! **Stealing.** A thief takes half of a group's threads, fresh ones first, from the front: those that have
//! waited longest run first wherever they run.

use super::group::{GroupId, Groups, MOST_GROUPS};
use super::line::{Line, Link};

/// Threads that one theft takes at most: enough to feed the thief for a while, few enough to be
/// moved in a microsecond under the victim's lock.
pub(crate) const MOST_STOLEN: usize = 256;

/// A group that is queued but not served for so many slices is stranded.
const STRANDED: u8 = 16;

/// The runnable threads of one group.
#[derive(Debug)]
struct Class<T> {
    fresh: Line<T>,
    cut: Line<T>,
    spent: Line<T>,
    /// No spent thread was taken out since the last slice passed.
    neglected: bool,
    /// There were always some cut short since then.
    cut_neglected: bool,
    /// A spent thread is to be taken out next.
    due: bool,
    /// Nanoseconds of the slice that passes now.
    served: u64,
    /// Slices of the worker's time that have passed since one was taken out.
    waited: u8,
}

impl<T: Link> Class<T> {
    const fn new() -> Class<T> {
        Class {
            fresh: Line::new(),
            cut: Line::new(),
            spent: Line::new(),
            neglected: false,
            cut_neglected: false,
            due: false,
            served: 0,
            waited: 0,
        }
    }

    fn len(&self) -> usize {
        self.fresh.len() + self.cut.len() + self.spent.len()
    }

    /// The thread to run now, and whether it is a spent one that was due although fresh ones wait.
    #[inline]
    fn pop(&mut self) -> Option<(T, bool)> {
        if !self.due
            && let Some(thread) = self.fresh.pop_front()
        {
            return Some((thread, false));
        }
        self.pop_spent()
    }

    fn pop_cut(&mut self) -> Option<T> {
        let thread = self.cut.pop_front()?;
        self.cut_neglected &= !self.cut.is_empty();
        Some(thread)
    }

    #[cold]
    fn pop_spent(&mut self) -> Option<(T, bool)> {
        let due = std::mem::take(&mut self.due);
        if !due && let Some(thread) = self.pop_cut() {
            return Some((thread, false));
        }
        if let Some(thread) = self.spent.pop_front() {
            self.neglected = false;
            return Some((thread, due && !self.fresh.is_empty()));
        }
        self.fresh.pop_front().or_else(|| self.pop_cut()).map(|thread| (thread, false))
    }
}

/// The runnable threads of one worker.
#[derive(Debug)]
pub(crate) struct RunQueue<T> {
    classes: [Class<T>; MOST_GROUPS],
    /// Groups with threads in the queue.
    queued: Groups,
    /// Groups whose first thread came since [`RunQueue::seen`], and that still have one.
    news: Groups,
    /// Groups that were not served for long.
    stranded: Groups,
    length: usize,
    /// The last thread taken out was due.
    took_due: bool,
}

impl<T: Link> RunQueue<T> {
    /// An empty queue.
    pub(crate) const fn new() -> RunQueue<T> {
        RunQueue {
            classes: [const { Class::new() }; MOST_GROUPS],
            queued: Groups::NONE,
            news: Groups::NONE,
            stranded: Groups::NONE,
            length: 0,
            took_due: false,
        }
    }

    /// Number of runnable threads.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The groups that they belong to.
    #[inline]
    pub(crate) fn queued(&self) -> Groups {
        self.queued
    }

    /// Groups that are queued and were not when [`RunQueue::seen`] was called last.
    #[inline]
    pub(crate) fn news(&self) -> Groups {
        self.news
    }

    /// A choice was made between the groups that are queued.
    pub(crate) fn seen(&mut self) {
        self.news = Groups::NONE;
    }

    /// Groups of which no thread was taken out for long, although some were queued. They may have got
    /// their share, or more, elsewhere: those who serve them there are to take their threads from here.
    #[inline]
    pub(crate) fn stranded(&self) -> Groups {
        self.stranded
    }

    /// Number of a group's threads.
    pub(crate) fn len_of(&self, group: GroupId) -> usize {
        self.classes[group.index()].len()
    }

    /// Number of those that are fresh.
    pub(crate) fn fresh_of(&self, group: GroupId) -> usize {
        self.classes[group.index()].fresh.len()
    }

    /// A thread became runnable.
    #[inline]
    pub(crate) fn push(&mut self, group: GroupId, thread: T) {
        self.classes[group.index()].fresh.push_back(thread);
        self.note_push(group);
    }

    /// A thread was interrupted, with or without having used up its slice.
    pub(crate) fn push_interrupted(&mut self, group: GroupId, thread: T, used_up: bool) {
        let class = &mut self.classes[group.index()];
        if used_up {
            class.spent.push_back(thread);
        } else {
            class.cut.push_front(thread);
        }
        self.note_push(group);
    }

    /// A thread that was due was interrupted, in the middle of its slice, for others than those of its group: it is
    /// still due.
    pub(crate) fn push_due(&mut self, group: GroupId, thread: T) {
        let class = &mut self.classes[group.index()];
        class.spent.push_front(thread);
        class.due = true;
        self.note_push(group);
    }

    #[inline]
    fn note_push(&mut self, group: GroupId) {
        self.length += 1;
        if !self.queued.contains(group) {
            self.queued.insert(group);
            self.news.insert(group);
        }
    }

    /// The thread of a group to run now.
    #[inline]
    #[must_use = "a thread that is taken out and not run is lost"]
    pub(crate) fn pop(&mut self, group: GroupId) -> Option<T> {
        let class = &mut self.classes[group.index()];
        let (thread, due) = class.pop()?;
        self.took_due = due;
        self.length -= 1;
        class.waited = 0;
        self.stranded.remove(group);
        if class.len() == 0 {
            self.queued.remove(group);
            self.news.remove(group);
        }
        Some(thread)
    }

    /// Ends the turn of a thread that yields: a thread of `to` is taken out and shown to `taken` before the old one,
    /// of `group`, goes to the end of the fresh ones of its group. The old one comes back if it is the only one.
    #[inline]
    #[must_use = "the queue holds the old thread now and lacks the new one"]
    pub(crate) fn rotate(
        &mut self,
        group: GroupId,
        thread: T,
        to: GroupId,
        taken: impl FnOnce(T),
    ) -> T {
        let Some(next) = self.pop(to) else { return thread };
        taken(next);
        self.push(group, thread);
        next
    }

    /// The thread of a group that is likely to run after the next one.
    #[inline]
    pub(crate) fn peek(&self, group: GroupId) -> Option<T> {
        self.classes[group.index()].fresh.front()
    }

    /// Threads of a group ran here for so long, while others, of whichever group, may have waited.
    pub(crate) fn served(&mut self, group: GroupId, time: u64, slice: u64) {
        let class = &mut self.classes[group.index()];
        class.served += time;
        if class.served >= slice {
            // However long it was: it was one turn, and those who wait have been passed over once.
            class.served %= slice.max(1);
            self.slice_passed(group);
        }
    }

    /// A slice of a group's time has passed in which threads waited here, of whichever group.
    pub(super) fn slice_passed(&mut self, group: GroupId) {
        let class = &mut self.classes[group.index()];
        if class.cut_neglected {
            class.spent.append(std::mem::replace(&mut class.cut, Line::new()));
        }
        class.cut_neglected = !class.cut.is_empty();
        let waits = !class.spent.is_empty();
        class.due = class.neglected && waits;
        class.neglected = waits;
        for other in self.queued.without(Groups::only(group)).iter() {
            let waited = &mut self.classes[other.index()].waited;
            *waited = waited.saturating_add(1);
            if *waited >= STRANDED {
                self.stranded.insert(other);
            }
        }
    }

    /// Whether the last thread taken out was spent, and was due although fresh ones waited: those have had
    /// their slice, and do not end its turn.
    pub(crate) fn took_due(&self) -> bool {
        self.took_due
    }

    /// Moves half of the group's threads that are `movable`, rounded up, from the front to `thief`; never
    /// more than it has spare capacity for.
    pub(crate) fn steal_into(
        &mut self,
        group: GroupId,
        thief: &mut Vec<T>,
        movable: impl Fn(T) -> bool,
    ) {
        let class = &mut self.classes[group.index()];
        let most = MOST_STOLEN.min(thief.capacity() - thief.len());
        // Fresh and spent ones are counted together, and the fresh ones taken first.
        let mut take = class.len().div_ceil(2).min(most);
        for line in [&mut class.fresh, &mut class.cut, &mut class.spent] {
            let mut kept = Line::new();
            while take > 0
                && let Some(thread) = line.pop_front()
            {
                if movable(thread) {
                    thief.push(thread);
                    self.length -= 1;
                    take -= 1;
                } else {
                    kept.push_back(thread);
                }
            }
            line.prepend(kept);
        }
        // Those that are left wait as long until others are fetched.
        class.waited = 0;
        self.stranded.remove(group);
        if class.len() == 0 {
            self.queued.remove(group);
            self.news.remove(group);
        }
    }
}

#[cfg(test)]
impl<T: Link> RunQueue<T> {
    /// Number of a group's threads that were cut short.
    pub(super) fn cut_of(&self, group: GroupId) -> usize {
        self.classes[group.index()].cut.len()
    }
}
