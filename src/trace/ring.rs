//! A ring of the newest events: one writer that never waits, readers that never disturb it.
//!
//! The writer fills the slots one after the other, round and round, and counts them in `head`. A reader copies
//! all slots and then throws away what may have been overwritten while it did so, as a reader of a seqlock does;
//! but the writer's counter is the lock's, so that nothing is written for the readers' sake.
//!
//! **Why a copy that is kept is whole.** Event *n* is written, word by word, to slot *n* mod *size*, and then `head`
//! becomes *n* + 1. A reader reads `head` (*before*), copies, and reads `head` again (*after*).
//!
//! - What it keeps was written before it copied: it copies events below *before* only, and the first reading
//!   acquires what the store to `head` released.
//! - What it keeps was not overwritten while it copied. Suppose it read a word of event *n* + *size* in the place
//!   of one of event *n*. The writer had stored *n* + *size* to `head` before that word, the word is released by its
//!   store and acquired by its load; so the second reading of `head` gives at least *n* + *size*, and *n* is thrown
//!   away: only events above *after* − *size* are kept.
//!
//! All stores are releases and all loads acquires, which on x86-64 are the plain ones. The words are atomic,
//! so that a copy which is thrown away was no data race.
//!
//! The writer must not be interrupted by another one: a worker's ring is written to on its OS thread, by the worker
//! and by green threads that are pinned; the handler of signals writes to it only if it interrupted neither.

use crate::atomic::{AtomicU64, Ordering};

/// An event as it is in memory: two words.
pub(super) type Packed = [u64; 2];

/// See the module's documentation. Aligned, so that no reader of something else takes the line of `head` away.
#[repr(align(64))]
pub(super) struct Ring {
    /// Events that were ever written.
    head: AtomicU64,
    /// The number of slots, less one.
    mask: u64,
    slots: Box<[[AtomicU64; 2]]>,
}

impl Ring {
    /// A ring of so many events, rounded up to a power of two, at least one.
    pub(super) fn new(size: usize) -> Ring {
        let size = size.max(1).next_power_of_two();
        Ring { head: AtomicU64::new(0), mask: size as u64 - 1, slots: slots(size) }
    }

    /// Number of slots.
    pub(super) fn size(&self) -> u64 {
        self.mask + 1
    }

    /// Writes an event over the oldest one. For the writer.
    #[inline(always)]
    pub(super) fn write(&self, event: Packed) {
        if cfg!(uthread_untraced) {
            return;
        }
        let head = self.head.load(Ordering::Relaxed);
        // SAFETY: there are `mask + 1` slots, a power of two.
        let slot = unsafe { self.slots.get_unchecked((head & self.mask) as usize) };
        slot[0].store(event[0], Ordering::Release);
        slot[1].store(event[1], Ordering::Release);
        self.head.store(head + 1, Ordering::Release);
    }

    /// The newest events, the oldest of them first, and how many older ones there were. Anyone may call it, any time.
    pub(super) fn copy(&self) -> (Vec<Packed>, u64) {
        let before = self.head.load(Ordering::Acquire);
        let first = before.saturating_sub(self.size());
        let copy = |n: u64| {
            let slot = &self.slots[(n & self.mask) as usize];
            [slot[0].load(Ordering::Acquire), slot[1].load(Ordering::Acquire)]
        };
        let mut events: Vec<Packed> = (first..before).map(copy).collect();
        let after = self.head.load(Ordering::Relaxed);
        // Event `after` may be half written, over the one that is `size` older.
        let kept = (after + 1).saturating_sub(self.size()).clamp(first, before);
        events.drain(..(kept - first) as usize);
        (events, kept)
    }
}

/// Memory that is touched when events are written to it, not before.
#[cfg(not(loom))]
fn slots(size: usize) -> Box<[[AtomicU64; 2]]> {
    let zeroed = Box::<[[AtomicU64; 2]]>::new_zeroed_slice(size);
    // SAFETY: an atomic word of zeros is one that says zero.
    unsafe { zeroed.assume_init() }
}

#[cfg(loom)]
fn slots(size: usize) -> Box<[[AtomicU64; 2]]> {
    (0..size).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_not_full_gives_back_what_was_written_to_it() {
        let ring = Ring::new(5);
        assert_eq!(ring.size(), 8);
        (0..6).for_each(|n| ring.write([n, n * 10]));
        assert_eq!(ring.copy(), ((0..6).map(|n| [n, n * 10]).collect(), 0));
    }

    #[test]
    fn a_ring_that_was_overwritten_keeps_the_newest() {
        let ring = Ring::new(8);
        (0..21).for_each(|n| ring.write([n, n]));
        // All but the one that the writer could be about to overwrite.
        assert_eq!(ring.copy(), ((14..21).map(|n| [n, n]).collect(), 14));
    }

    #[test]
    fn a_ring_of_one_keeps_nothing() {
        let ring = Ring::new(0);
        (0..3).for_each(|n| ring.write([n, n]));
        assert_eq!(ring.copy(), (vec![], 3));
    }

    #[test]
    fn copies_made_while_it_is_written_to_are_whole_and_in_order() {
        let ring = std::sync::Arc::new(Ring::new(64));
        let writer = std::thread::spawn({
            let ring = ring.clone();
            move || (0..200_000).for_each(|n| ring.write([n, n]))
        });
        while !writer.is_finished() {
            let (events, overwritten) = ring.copy();
            for (expected, event) in (overwritten..).zip(events) {
                assert_eq!(event, [expected, expected]);
            }
        }
        writer.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn what_a_reader_keeps_is_whole_and_nothing_is_missing() {
        loom::model(|| {
            let ring = Arc::new(Ring::new(2));
            ring.write([0, 0]);
            let writer = ring.clone();
            let thread = loom::thread::spawn(move || {
                (1..4).for_each(|n| writer.write([n, n]));
            });
            let (events, overwritten) = ring.copy();
            for (expected, event) in (overwritten..).zip(events) {
                assert_eq!(event, [expected, expected], "a torn event, or an old one");
            }
            thread.join().unwrap();
            assert_eq!(ring.copy(), (vec![[3, 3]], 3), "the newest");
        });
    }
}
