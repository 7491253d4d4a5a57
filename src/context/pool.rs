//! Slots (stack and thread block) between occupants: kept warm, shrunk when idle.
//!
//! **Problem.** The first touch of a fresh page costs 6–17 µs on a virtual machine, a thread block a
//! microsecond: far more than running a short thread. But a burst of a million threads must not keep
//! its memory for good.
//!
//! **Choice.** One pool per stack size, for the whole process, so that any number of runtimes share
//! it. Slots are taken and returned at the same end, the warm one. What lies at the other end long
//! enough pays back in two steps, by whoever calls [`maintain`] with time to spare: first the deep
//! pages, then, for slots that were in nobody's way for a while, everything: the thread block is
//! dismantled and only address space remains.

use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::stack::{Slab, Stack, page_size};
use super::tls::{self, ThreadBlock};

/// Pages at the top of a pooled stack that stay warm; most threads never go deeper.
const WARM_PAGES: usize = 4;
/// Slots that a pool keeps however idle it is.
const KEPT_SLOTS: usize = 64;
/// A slot that nobody needed for this long is surplus.
const SURPLUS_AFTER: Duration = Duration::from_secs(1);
/// Slots that one call of [`maintain`] works on: half a millisecond of system calls, during which
/// spawning may wait for the pool.
const MAINTENANCE_BATCH: usize = 256;
/// Stacks in a pool's first slab; each further slab doubles the pool.
const FIRST_SLAB: usize = 64;
/// The largest slab in bytes, if it holds more than one stack.
const LARGEST_SLAB: usize = 64 << 30;

/// A stack and, if it was built, the thread block in it. Unoccupied.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stack: Stack,
    block: Option<ThreadBlock>,
    /// The deep pages were returned to the kernel since the last occupant.
    trimmed: bool,
}

impl Slot {
    /// The thread pointer of the slot's block, if it has one.
    #[inline]
    pub(crate) fn thread_pointer(&self) -> Option<usize> {
        self.block.as_ref().map(ThreadBlock::thread_pointer)
    }

    /// The highest address below the thread block: where the control block and the frames go.
    #[inline]
    pub(crate) fn usable_top(&self) -> NonNull<u8> {
        self.block.as_ref().map_or(self.stack.top(), ThreadBlock::low)
    }

    /// Makes the slot ready for its next occupant, building the thread block if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`ThreadBlock::build`] and [`ThreadBlock::renew`], and a block that leaves no room on
    /// so small a stack.
    fn prepare(&mut self, with_block: bool) -> io::Result<()> {
        self.trimmed = false;
        match &mut self.block {
            Some(block) => block.renew(),
            None if with_block => {
                if tls::footprint() > self.stack.size() / 2 {
                    return Err(io::Error::other(format!(
                        "the program's thread-local storage takes {} bytes, more than half of a stack of {}; \
                         ask for a larger stack",
                        tls::footprint(),
                        self.stack.size()
                    )));
                }
                // SAFETY: the stack is unoccupied and aligned to a page; it is unmapped never, and its
                // top pages are discarded only after the block was dismantled. Callers ask for a
                // block only where they are available.
                self.block = Some(unsafe { ThreadBlock::build(self.stack.top())? });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Returns what a past occupant touched below the warm pages.
    fn trim(&mut self) {
        if !self.trimmed {
            // SAFETY: the slot is unoccupied.
            unsafe { self.stack.discard_below(WARM_PAGES * page_size()) };
            self.trimmed = true;
        }
    }

    /// Returns all memory.
    fn chill(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: the slot is unoccupied, hence no OS thread runs on its block.
            unsafe { block.dismantle() };
        }
        // SAFETY: as above, and the block is gone.
        unsafe { self.stack.discard_below(0) };
    }
}

/// The slots of one stack size.
pub(crate) struct Pool {
    stack_size: usize,
    free: Mutex<Free>,
}

struct Free {
    /// Slots that hold memory; the warmest is last.
    warm: Vec<Slot>,
    /// How many of `warm`, from the start, are known to be trimmed.
    trimmed: usize,
    /// Stacks that hold no memory.
    cold: Vec<Slot>,
    slabs: Vec<Slab>,
    stacks: usize,
    /// The least number of warm slots since `since`: these were in nobody's way.
    unneeded: usize,
    since: Instant,
}

/// Counts of all pools, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Stacks ever cut from slabs.
    pub(crate) mapped: usize,
    /// Stacks that lie in pools.
    pub(crate) pooled: usize,
    /// Bytes of address space reserved.
    pub(crate) reserved: usize,
}

/// All pools of the process; at most one per power of two.
static POOLS: Mutex<Vec<&'static Pool>> = Mutex::new(Vec::new());

/// Poisoning says nothing here: no lock is held over code that may panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of stacks of a size returned by [`super::stack::rounded_size`].
pub(crate) fn of_size(stack_size: usize) -> &'static Pool {
    let mut pools = lock(&POOLS);
    if let Some(pool) = pools.iter().find(|p| p.stack_size == stack_size) {
        return pool;
    }
    let free = Free {
        warm: Vec::new(),
        trimmed: 0,
        cold: Vec::new(),
        slabs: Vec::new(),
        stacks: 0,
        unneeded: 0,
        since: Instant::now(),
    };
    let pool = Box::leak(Box::new(Pool { stack_size, free: Mutex::new(free) }));
    pools.push(pool);
    pool
}

/// Counts over all pools.
pub(crate) fn totals() -> Totals {
    let mut totals = Totals::default();
    for pool in lock(&POOLS).iter() {
        let free = lock(&pool.free);
        totals.mapped += free.stacks;
        totals.pooled += free.warm.len() + free.cold.len();
        totals.reserved += free.slabs.iter().map(Slab::length).sum::<usize>();
    }
    totals
}

/// Does a bounded part of what can be given back now; when to call again, or `None` when nothing is
/// left to do until slots are returned.
pub(crate) fn maintain() -> Option<Duration> {
    let pools = match POOLS.try_lock() {
        Ok(pools) => pools.clone(),
        // Somebody else is at it.
        Err(TryLockError::WouldBlock) => return Some(SURPLUS_AFTER),
        Err(TryLockError::Poisoned(e)) => e.into_inner().clone(),
    };
    pools.iter().filter_map(|pool| pool.maintain()).min()
}

impl Pool {
    /// Bytes of each stack.
    pub(crate) fn stack_size(&self) -> usize {
        self.stack_size
    }

    /// A slot ready for an occupant, with a thread block if asked for.
    ///
    /// # Errors
    ///
    /// No address space, mappings or memory for another stack or block; nothing is lost then.
    pub(crate) fn take(&self, with_block: bool) -> io::Result<Slot> {
        if with_block {
            tls::check_modules()?;
        }
        let mut slot = lock(&self.free).take(self.stack_size)?;
        match slot.prepare(with_block) {
            Ok(()) => Ok(slot),
            Err(e) => {
                self.put_back([slot]);
                Err(e)
            }
        }
    }

    /// A slot that a worker had put aside, made ready.
    ///
    /// # Errors
    ///
    /// As for [`Pool::take`].
    pub(crate) fn reuse(&self, mut slot: Slot, with_block: bool) -> io::Result<Slot> {
        match slot.prepare(with_block) {
            Ok(()) => Ok(slot),
            Err(e) => {
                self.put_back([slot]);
                Err(e)
            }
        }
    }

    /// Moves up to `count` warm slots to `to`, the warmest last.
    ///
    /// # Errors
    ///
    /// Those of [`tls::check_modules`].
    pub(crate) fn take_warm(
        &self,
        count: usize,
        with_blocks: bool,
        to: &mut Vec<Slot>,
    ) -> io::Result<()> {
        if with_blocks {
            tls::check_modules()?;
        }
        let mut free = lock(&self.free);
        let rest = free.warm.len() - count.min(free.warm.len());
        to.extend(free.warm.drain(rest..));
        free.note_taken();
        Ok(())
    }

    /// Takes back slots without occupants.
    pub(crate) fn put_back(&self, slots: impl IntoIterator<Item = Slot>) {
        lock(&self.free).warm.extend(slots);
    }

    fn maintain(&self) -> Option<Duration> {
        let Ok(mut free) = self.free.try_lock() else { return Some(SURPLUS_AFTER) };
        if free.warm.len() <= KEPT_SLOTS && free.trimmed == free.warm.len() {
            return None;
        }
        let more_to_trim = free.trim();
        let more_to_chill = free.chill_surplus();
        if more_to_trim || more_to_chill {
            return Some(Duration::ZERO);
        }
        (free.warm.len() > KEPT_SLOTS).then(|| SURPLUS_AFTER.saturating_sub(free.since.elapsed()))
    }
}

impl Free {
    fn take(&mut self, stack_size: usize) -> io::Result<Slot> {
        if let Some(slot) = self.warm.pop() {
            self.note_taken();
            return Ok(slot);
        }
        if let Some(slot) = self.cold.pop() {
            return Ok(slot);
        }
        let carved = match self.slabs.last_mut().map_or(Ok(None), Slab::carve)? {
            Some(stack) => stack,
            None => {
                let most = (LARGEST_SLAB / stack_size).max(1);
                let count = self.stacks.max(FIRST_SLAB).min(most);
                self.slabs.push(Slab::reserve(stack_size, count)?);
                let slab = self.slabs.last_mut().expect("a slab was just added");
                slab.carve()?.expect("a new slab has stacks")
            }
        };
        self.stacks += 1;
        Ok(Slot { stack: carved, block: None, trimmed: true })
    }

    fn note_taken(&mut self) {
        self.trimmed = self.trimmed.min(self.warm.len());
        self.unneeded = self.unneeded.min(self.warm.len());
    }

    /// Trims some slots; whether more are left.
    fn trim(&mut self) -> bool {
        let end = self.warm.len().min(self.trimmed + MAINTENANCE_BATCH);
        self.warm[self.trimmed..end].iter_mut().for_each(Slot::trim);
        self.trimmed = end;
        end < self.warm.len()
    }

    /// Chills some of the slots that nobody needed lately; whether more are left.
    fn chill_surplus(&mut self) -> bool {
        if self.since.elapsed() < SURPLUS_AFTER {
            return false;
        }
        let count =
            self.unneeded.min(self.warm.len()).saturating_sub(KEPT_SLOTS).min(MAINTENANCE_BATCH);
        for mut slot in self.warm.drain(..count) {
            slot.chill();
            self.cold.push(slot);
        }
        self.trimmed = self.trimmed.saturating_sub(count);
        self.unneeded -= count.min(self.unneeded);
        if count == MAINTENANCE_BATCH {
            return true;
        }
        self.unneeded = self.warm.len();
        self.since = Instant::now();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::stack::MIN_SIZE;

    /// A pool of its own, so that tests do not see each other's slots.
    fn pool() -> Pool {
        let free = Free {
            warm: Vec::new(),
            trimmed: 0,
            cold: Vec::new(),
            slabs: Vec::new(),
            stacks: 0,
            unneeded: 0,
            since: Instant::now(),
        };
        Pool { stack_size: MIN_SIZE, free: Mutex::new(free) }
    }

    #[test]
    fn a_slot_returned_is_the_next_one_taken() {
        let pool = pool();
        let first = pool.take(false).unwrap();
        let top = first.stack.top();
        pool.put_back([first]);
        assert_eq!(pool.take(false).unwrap().stack.top(), top);
    }

    #[test]
    fn an_idle_pool_trims_and_then_gives_its_surplus_back() {
        let pool = pool();
        let slots: Vec<Slot> = (0..KEPT_SLOTS + 10).map(|_| pool.take(false).unwrap()).collect();
        assert_eq!(pool.maintain(), None, "nothing is pooled");
        pool.put_back(slots);
        assert!(pool.maintain().is_some());
        assert_eq!(lock(&pool.free).trimmed, KEPT_SLOTS + 10);
        // Two intervals of idleness: the first one saw the slots being used.
        for _ in 0..2 {
            lock(&pool.free).since -= SURPLUS_AFTER;
            pool.maintain();
        }
        let free = lock(&pool.free);
        assert_eq!((free.warm.len(), free.cold.len()), (KEPT_SLOTS, 10));
        drop(free);
        assert_eq!(pool.maintain(), None);
        assert_eq!(lock(&pool.free).slabs.len(), 2, "cold stacks are kept");
    }

    #[test]
    fn blocks_survive_being_chilled_and_built_anew() {
        if tls::available().is_err() {
            return;
        }
        let pool = pool();
        let mut slot = pool.take(true).unwrap();
        let before = slot.thread_pointer();
        assert!(before.is_some());
        slot.chill();
        assert_eq!(slot.thread_pointer(), None);
        assert_eq!(pool.reuse(slot, true).unwrap().thread_pointer(), before);
    }
}
