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
//!
//! **Who may do what.** Workers return slots, between two green threads, so that the lock of the free slots
//! must obey the rule of progress (`preempt::pin`): a spin lock, taken pinned, under which nothing is
//! allocated. The lists have room for all stacks of the pool from the moment that a slab is added. To cut
//! stacks, to build thread blocks and to give memory back takes system calls, libc and the loader: that is done
//! outside of the lock, by spawning threads and by whoever calls [`maintain`].

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stack::{Resident, Slab, Stack, page_size};
use super::tls::{self, ThreadBlock};
use crate::lock::SpinLock;

/// Pages at the top of a pooled stack that stay warm; most threads never go deeper.
const WARM_PAGES: usize = 4;
/// Slots that a pool keeps however idle it is.
const KEPT_SLOTS: usize = 64;
/// A slot that nobody needed for this long is surplus.
const SURPLUS_AFTER: Duration = Duration::from_secs(1);
/// Slots that one call of [`maintain`] works on: half a millisecond of system calls, during which
/// spawning does without them.
const MAINTENANCE_BATCH: usize = 256;
/// Stacks in a pool's first slab; each further slab doubles the pool.
const FIRST_SLAB: usize = 64;
/// The largest slab in bytes, if it holds more than one stack.
const LARGEST_SLAB: usize = 64 << 30;

/// A stack and, if it was built, the thread block in it. Unoccupied.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stack: Stack,
    /// Who occupies it.
    pub(crate) resident: &'static Resident,
    block: Option<ThreadBlock>,
    pool: &'static Pool,
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

    /// The pool that it belongs to.
    pub(crate) fn pool(&self) -> &'static Pool {
        self.pool
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
    free: SpinLock<Free>,
    /// Never taken by workers, and held by threads that can be interrupted.
    slabs: Mutex<Slabs>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("stack_size", &self.stack_size).finish_non_exhaustive()
    }
}

/// Slots without occupants. Each list has room for all stacks of the pool.
struct Free {
    /// Slots that hold all the memory that their last occupants touched; the warmest is last.
    warm: VecDeque<Slot>,
    /// Slots that were trimmed; likewise.
    trimmed: VecDeque<Slot>,
    /// Slots that hold no memory.
    cold: VecDeque<Slot>,
    /// The least number of warm and trimmed slots since `since`: these were in nobody's way.
    unneeded: usize,
    since: Instant,
}

/// Where stacks are cut from.
#[derive(Default)]
struct Slabs {
    slabs: Vec<Slab>,
    /// Stacks that were cut.
    stacks: usize,
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

/// Slots were returned since [`maintain`] last found nothing to do.
static RETURNED: AtomicBool = AtomicBool::new(false);

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
    let pool = Pool::leak(stack_size);
    pools.push(pool);
    pool
}

/// Counts over all pools.
pub(crate) fn totals() -> Totals {
    let mut totals = Totals::default();
    for pool in lock(&POOLS).iter() {
        let slabs = lock(&pool.slabs);
        totals.mapped += slabs.stacks;
        totals.reserved += slabs.slabs.iter().map(Slab::length).sum::<usize>();
        totals.pooled += pool.free.with_pinned(|f| f.holding() + f.cold.len());
    }
    totals
}

/// Who is on the stacks of the process, slab by slab. Waits for a thread that cuts a stack, and may have been
/// interrupted meanwhile: not for those whom others wait for.
pub(crate) fn residents() -> Vec<&'static [Resident]> {
    let pools = lock(&POOLS).clone();
    let slabs = |pool: &&'static Pool| -> Vec<_> {
        lock(&pool.slabs).slabs.iter().map(Slab::residents).collect()
    };
    pools.iter().flat_map(slabs).collect()
}

/// Whether [`maintain`] has something to do, now or later.
pub(crate) fn wants_maintenance() -> bool {
    RETURNED.load(Ordering::Relaxed)
}

/// Does a bounded part of what can be given back now; when to call again, or `None` when nothing is
/// left to do until slots are returned. Not to be called by workers.
pub(crate) fn maintain() -> Option<Duration> {
    RETURNED.store(false, Ordering::Relaxed);
    let pools = lock(&POOLS).clone();
    pools.iter().filter_map(|pool| pool.maintain()).min()
}

impl Pool {
    fn leak(stack_size: usize) -> &'static Pool {
        let free = Free {
            warm: VecDeque::new(),
            trimmed: VecDeque::new(),
            cold: VecDeque::new(),
            unneeded: 0,
            since: Instant::now(),
        };
        Box::leak(Box::new(Pool { stack_size, free: SpinLock::new(free), slabs: Mutex::default() }))
    }

    /// A slot ready for an occupant, with a thread block if asked for. The caller is not pinned.
    ///
    /// # Errors
    ///
    /// No address space, mappings or memory for another stack or block; nothing is lost then.
    pub(crate) fn take(&'static self, with_block: bool) -> io::Result<Slot> {
        if with_block {
            tls::check_modules()?;
        }
        let slot = match self.free.with_pinned(Free::take) {
            Some(slot) => slot,
            None => self.carve()?,
        };
        self.reuse(slot, with_block)
    }

    /// A slot that lay at hand, made ready. The caller is not pinned.
    ///
    /// # Errors
    ///
    /// As for [`Pool::take`].
    pub(crate) fn reuse(&self, mut slot: Slot, with_block: bool) -> io::Result<Slot> {
        match slot.prepare(with_block) {
            Ok(()) => Ok(slot),
            Err(e) => {
                self.free.with_pinned(|f| f.put_back([slot]));
                Err(e)
            }
        }
    }

    /// Moves up to `count` slots that hold memory to `to`, the warmest last. To be called pinned, and only
    /// after [`tls::check_modules`] where slots have thread blocks.
    pub(crate) fn take_warm(&self, count: usize, to: &mut Vec<Slot>) {
        debug_assert!(to.capacity() - to.len() >= count, "this does not allocate");
        self.free.with(|free| {
            let rest = free.warm.len().saturating_sub(count);
            to.extend(free.warm.drain(rest..));
            while to.len() < count
                && let Some(slot) = free.trimmed.pop_back()
            {
                to.push(slot);
            }
            free.note_taken();
        });
    }

    /// Takes back slots without occupants. For workers; never allocates.
    pub(crate) fn put_back(&self, slots: impl IntoIterator<Item = Slot>) {
        self.free.with(|f| f.put_back(slots));
        RETURNED.store(true, Ordering::Relaxed);
    }

    /// A stack that nobody has had.
    fn carve(&'static self) -> io::Result<Slot> {
        let mut slabs = lock(&self.slabs);
        let (stack, resident) = match slabs.slabs.last_mut().map_or(Ok(None), Slab::carve)? {
            Some(stack) => stack,
            None => {
                let most = (LARGEST_SLAB / self.stack_size).max(1);
                let count = slabs.stacks.max(FIRST_SLAB).min(most);
                let mut slab = Slab::reserve(self.stack_size, count)?;
                self.make_room(slabs.stacks + count)?;
                let stack = slab.carve()?.expect("a new slab has stacks");
                slabs.slabs.push(slab);
                stack
            }
        };
        slabs.stacks += 1;
        Ok(Slot { stack, resident, block: None, pool: self, trimmed: true })
    }

    /// Gives the lists room for so many slots.
    fn make_room(&self, slots: usize) -> io::Result<()> {
        let list = || {
            let mut list = VecDeque::new();
            list.try_reserve_exact(slots).map(|()| list).map_err(|_| io::ErrorKind::OutOfMemory)
        };
        let mut lists = [list()?, list()?, list()?];
        self.free.with_pinned(|free| {
            let old = [&mut free.warm, &mut free.trimmed, &mut free.cold];
            for (old, new) in old.into_iter().zip(&mut lists) {
                new.append(old);
                std::mem::swap(old, new);
            }
        });
        // The old ones are freed here.
        drop(lists);
        Ok(())
    }

    fn maintain(&self) -> Option<Duration> {
        let mut batch = VecDeque::with_capacity(MAINTENANCE_BATCH);
        self.free.with_pinned(|free| {
            let count = free.warm.len().min(MAINTENANCE_BATCH);
            batch.extend(free.warm.drain(..count));
        });
        let more_to_trim = batch.len() == MAINTENANCE_BATCH;
        batch.iter_mut().for_each(Slot::trim);
        let surplus = self.free.with_pinned(|free| {
            free.trimmed.append(&mut batch);
            free.take_surplus(&mut batch)
        });
        let more_to_chill = batch.len() == MAINTENANCE_BATCH;
        batch.iter_mut().for_each(Slot::chill);
        self.free.with_pinned(|free| free.cold.append(&mut batch));
        if more_to_trim || more_to_chill { Some(Duration::ZERO) } else { surplus }
    }
}

impl Free {
    /// Number of slots that hold memory.
    fn holding(&self) -> usize {
        self.warm.len() + self.trimmed.len()
    }

    fn take(&mut self) -> Option<Slot> {
        let slot = self.warm.pop_back().or_else(|| self.trimmed.pop_back());
        self.note_taken();
        slot.or_else(|| self.cold.pop_back())
    }

    fn put_back(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            debug_assert!(self.warm.len() < self.warm.capacity(), "there is room for all stacks");
            self.warm.push_back(slot);
        }
    }

    fn note_taken(&mut self) {
        self.unneeded = self.unneeded.min(self.holding());
    }

    /// Takes out some of the slots that nobody needed lately; how long to wait for more to become such.
    fn take_surplus(&mut self, batch: &mut VecDeque<Slot>) -> Option<Duration> {
        let age = self.since.elapsed();
        if age >= SURPLUS_AFTER {
            let surplus = self.unneeded.min(self.holding()).saturating_sub(KEPT_SLOTS);
            let count = surplus.min(MAINTENANCE_BATCH).min(self.trimmed.len());
            batch.extend(self.trimmed.drain(..count));
            self.unneeded -= count;
            if count < MAINTENANCE_BATCH {
                self.unneeded = self.holding();
                self.since = Instant::now();
            }
        }
        (self.holding() > KEPT_SLOTS).then(|| SURPLUS_AFTER.saturating_sub(self.since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::stack::MIN_SIZE;

    /// A pool of its own, so that tests do not see each other's slots.
    fn pool() -> &'static Pool {
        Pool::leak(MIN_SIZE)
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
        assert_eq!(pool.free.with(|f| f.trimmed.len()), KEPT_SLOTS + 10);
        // Two intervals of idleness: the first one saw the slots being used.
        for _ in 0..2 {
            pool.free.with(|f| f.since -= SURPLUS_AFTER);
            pool.maintain();
        }
        assert_eq!(pool.free.with(|f| (f.holding(), f.cold.len())), (KEPT_SLOTS, 10));
        assert_eq!(pool.maintain(), None);
        assert_eq!(lock(&pool.slabs).slabs.len(), 2, "cold stacks are kept");
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
