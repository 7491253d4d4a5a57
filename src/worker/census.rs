//! All threads of a runtime, as they are at the moment, for those who want to know.
//!
//! **Problem.** Threads are created and end in a fraction of a microsecond. A list of them all would have to be
//! changed each time, by whatever worker it happens on.
//!
//! **Choice.** There is one already: each stack belongs to a slab, slabs are never unmapped, and each stack
//! says who is on it ([`Resident`]), which costs two plain stores in a thread's life. A census reads copies of
//! their control blocks ([`peek`]), and nobody waits for it. A copy is what its thread was at some instant
//! during the census if its number was the same before and after; except that the numbers in it, which the thread's
//! worker changes meanwhile, may be of instants a little apart.

use std::io;
use std::mem::MaybeUninit;
use std::panic::Location;
use std::string::FromUtf8Error;
use std::time::Duration;

use super::green::Green;
use super::run::Worker;
use super::runtime::Runtime;
use super::state::State;
use crate::arch::Position;
use crate::context::peek;
use crate::context::pool;
use crate::context::stack::{Resident, Stack};
use crate::reason::WaitReason;
use crate::sched::GroupId;
use crate::stats::SchedStat;
use crate::time::now;

/// Control blocks that are copied at a time: all are fetched first, and stay in the nearest cache until they are looked
/// at. With 1024, a census takes a third longer.
const BATCH: usize = 64;
/// Names that are copied by one system call.
const NAMES: usize = 256;
/// Longer names are cut.
const LONGEST_NAME: usize = 256;

/// A thread as it was at some instant.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) resident: &'static Resident,
    /// Where its control block lies: above its frames.
    pub(crate) block: usize,
    /// None if it has none, or was not asked for its name.
    pub(crate) name: Option<String>,
    /// See [`Glance`].
    name_at: (usize, usize),
    pub(crate) state: State,
    /// What it waits for; something else if its state is another.
    pub(crate) reason: WaitReason,
    pub(crate) group: GroupId,
    /// The index of the worker where it runs, or ran last.
    pub(crate) worker: Option<usize>,
    pub(crate) spawned_at: &'static Location<'static>,
    /// Nanoseconds of the monotonic clock.
    pub(crate) born: u64,
    pub(crate) stat: SchedStat,
    pub(crate) stack: Stack,
    /// Where it left its worker last.
    pub(crate) left_at: Position,
    queued_at: u64,
}

impl Entry {
    /// Whether it has never left a worker or helper: it is new, or still runs for the first time.
    pub(crate) fn has_never_left(&self) -> bool {
        self.left_at == Position::default()
    }

    /// Whether the thread has done nothing between the two looks, or has run all the time: it may have been on a
    /// helper, where it has no turns, but then it was queued again.
    pub(crate) fn is_where_it_was(&self, earlier: &Entry) -> bool {
        let word = |e: &Entry| (e.state, e.stat.turns, e.queued_at, e.left_at);
        word(self) == word(earlier)
    }

    /// The address of what a seat knows of the thread.
    pub(crate) fn subject(&self) -> usize {
        Green::subject_at(self.block)
    }
}

/// See [`Green::glance`]. Addresses, of which nobody knows whether they are still good.
pub(super) struct Glance {
    pub(super) runtime: usize,
    /// And length; no name if it is 0.
    pub(super) name: (usize, usize),
}

/// See [`Green::read_copy`].
pub(super) struct Copied {
    pub(super) worker: *const Worker,
    pub(super) state: State,
    pub(super) reason: WaitReason,
    pub(super) group: GroupId,
    pub(super) spawned_at: &'static Location<'static>,
    pub(super) born: u64,
    pub(super) queued_at: u64,
    pub(super) stat: SchedStat,
    pub(super) stack: Stack,
    pub(super) left_at: Position,
}

/// The threads of a runtime that exist now and have been queued at least once, by number.
///
/// # Errors
///
/// Those of [`peek::copy`].
pub(crate) fn take(runtime: &Runtime) -> io::Result<Vec<Entry>> {
    let mut entries = take_unnamed(runtime);
    name(&mut entries.iter_mut().collect::<Vec<_>>())?;
    Ok(entries)
}

/// As [`take`], without the threads' names, which lie elsewhere: to read them takes several times as long as the rest.
pub(crate) fn take_unnamed(runtime: &Runtime) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(runtime.live());
    let mut batch = Batch::default();
    for residents in pool::residents() {
        for resident in residents {
            batch.seen.extend(resident.get().map(|(number, block)| (resident, number, block)));
            if batch.seen.len() == BATCH {
                batch.add_to(&mut entries, runtime);
            }
        }
    }
    batch.add_to(&mut entries, runtime);
    entries.sort_unstable_by_key(|entry: &Entry| entry.number);
    entries
}

/// The same thread again, if it still exists.
pub(crate) fn again(runtime: &Runtime, entry: &Entry) -> Option<Entry> {
    let again = one(runtime, (entry.resident, entry.number, entry.block))?;
    Some(Entry { name: entry.name.clone(), ..again })
}

fn one(runtime: &Runtime, seen: Seen) -> Option<Entry> {
    let (mut batch, mut entries) = (Batch::default(), Vec::new());
    batch.seen.push(seen);
    batch.add_to(&mut entries, runtime);
    entries.pop()
}

/// The thread with that number, if it exists.
///
/// # Errors
///
/// As for [`take`].
#[cfg(feature = "inspect")]
pub(crate) fn find(runtime: &Runtime, number: u64) -> io::Result<Option<Entry>> {
    let seen = pool::residents().into_iter().flatten().find_map(|resident| {
        resident.get().filter(|(n, _)| *n == number).map(|(n, block)| (resident, n, block))
    });
    let mut found = seen.and_then(|seen| one(runtime, seen));
    name(&mut found.iter_mut().collect::<Vec<_>>())?;
    Ok(found)
}

type Seen = (&'static Resident, u64, usize);

/// Threads that were seen, with room for copies of their control blocks.
#[derive(Default)]
struct Batch {
    seen: Vec<Seen>,
    blocks: Vec<usize>,
    copies: Vec<MaybeUninit<Green>>,
}

impl Batch {
    /// Looks at these threads, after which there are none.
    fn add_to(&mut self, entries: &mut Vec<Entry>, runtime: &Runtime) {
        self.blocks.clear();
        self.blocks.extend(self.seen.iter().map(|(_, _, block)| *block));
        let missing = self.blocks.len().saturating_sub(self.copies.len());
        self.copies.extend((0..missing).map(|_| MaybeUninit::uninit()));
        // SAFETY: control blocks lie in slabs, which are never unmapped; they are aligned to cache lines.
        unsafe { peek::copy_mapped(&self.blocks, &mut self.copies) };
        for ((resident, number, block), copy) in self.seen.drain(..).zip(&self.copies) {
            // SAFETY: the bytes were copied.
            entries.extend(unsafe { look(runtime, resident, number, block, copy.as_ptr()) });
        }
    }
}

/// What the copy of a control block says, if it is of that thread, and this runtime's.
///
/// # Safety
///
/// The copy's bytes are initialised. They were copied from `block` after the resident was seen to have that number and
/// to lie there.
unsafe fn look(
    runtime: &Runtime,
    resident: &'static Resident,
    number: u64,
    block: usize,
    copy: *const Green,
) -> Option<Entry> {
    // SAFETY: the bytes are initialised.
    let glance = unsafe { Green::glance(copy) };
    let is_own = glance.runtime == std::ptr::from_ref(runtime).addr();
    if !is_own || !resident.is_still(number) {
        return None;
    }
    // SAFETY: the thread whose number that is existed before and after.
    let copied = unsafe { Green::read_copy(copy) };
    let Copied { state, reason, group, spawned_at, born, stack, left_at, .. } = copied;
    // What has no time of birth yet is about to be queued for the first time.
    if matches!(state, State::New | State::Ended) || born == 0 {
        return None;
    }
    let index = runtime.workers().iter().position(|w| std::ptr::eq(w, copied.worker));
    let stat = up_to_now(&copied, index.map(|i| &runtime.workers()[i]));
    Some(Entry {
        number,
        resident,
        block,
        name: None,
        name_at: glance.name,
        state,
        reason,
        group,
        worker: index,
        spawned_at,
        born,
        stat,
        stack,
        left_at,
        queued_at: copied.queued_at,
    })
}

/// Its account, with what has come since it was written.
fn up_to_now(copied: &Copied, worker: Option<&Worker>) -> SchedStat {
    let mut stat = copied.stat;
    match copied.state {
        State::Running => {
            let present = worker.map_or(0, |w| w.turns().present(copied.group, now()));
            stat.run_time += Duration::from_nanos(present);
        }
        State::Queued => {
            // A copy may be of two instants; nobody waits for longer than he lives.
            let now = now();
            let waited = now.saturating_sub(copied.queued_at).min(now.saturating_sub(copied.born));
            stat.run_delay += Duration::from_nanos(waited);
            stat.end_turn();
        }
        _ => stat.end_turn(),
    }
    stat
}

/// Reads the names of these threads, as far as they still exist.
///
/// # Errors
///
/// Those of [`peek::copy`].
pub(crate) fn name(entries: &mut [&mut Entry]) -> io::Result<()> {
    let mut named: Vec<_> = entries.iter_mut().filter(|entry| entry.name_at.0 > 0).collect();
    for batch in named.chunks_mut(NAMES) {
        let ranges = batch.iter().map(|entry| (entry.name_at.0, LONGEST_NAME.min(entry.name_at.1)));
        let bytes = peek::copy_ranges(&ranges.collect::<Vec<_>>())?;
        // A thread says that it has no name before that is gone.
        let again: Vec<_> = batch.iter().map(|entry| Green::name_at(entry.block)).collect();
        let mut words = vec![0; again.len() * size_of::<[usize; 2]>()];
        peek::copy(&again, size_of::<[usize; 2]>(), &mut words)?;
        let (words, _) = words.as_chunks::<{ size_of::<usize>() }>();
        let mut words = words.iter().map(|word| usize::from_ne_bytes(*word));
        for (entry, bytes) in batch.iter_mut().zip(bytes) {
            let now = (words.next().unwrap_or(0), words.next().unwrap_or(0));
            if now == entry.name_at && entry.resident.is_still(entry.number) {
                // It may have been cut in the middle of a character.
                let lossy = |e: FromUtf8Error| String::from_utf8_lossy(e.as_bytes()).into_owned();
                entry.name = Some(String::from_utf8(bytes).unwrap_or_else(lossy));
            }
        }
    }
    Ok(())
}
