//! All threads, with their frames.

use std::fmt;
use std::io;

use super::frames::{Frame, Walker};
use super::{ThreadInfo, describe, usage};
use crate::context::peek;
use crate::time::now;
use crate::worker::census::{self, Entry};
use crate::worker::{Runtime, State};

/// Bytes of a stack that are looked at, from the stack pointer on.
const MOST: usize = 256 << 10;
/// How often a thread is looked at that runs, or has run meanwhile.
const TRIES: usize = 4;

/// A green thread with its frames.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadDump {
    /// The thread.
    pub thread: ThreadInfo,
    /// The functions that it is in, innermost first. None if it has not begun yet, or could not be caught: one that is
    /// blocked where no signal reaches it, or was never found twice in the same turn.
    pub frames: Vec<Frame>,
}

/// All green threads of a runtime, with their frames. Made by [`dump`](fn@crate::dump).
///
/// `Display` writes it as text. Threads with the same frames, state and place of spawning are written once, with
/// their number.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Dump {
    /// In the order of [`threads`](fn@crate::threads).
    pub threads: Vec<ThreadDump>,
}

pub(super) fn take(runtime: &Runtime) -> io::Result<Dump> {
    let pages = usage::PageMap::open()?;
    let mut walker = Walker::new();
    let mut threads = Vec::new();
    for entry in census::take(runtime)? {
        let Some((entry, frames)) = catch(runtime, entry, &mut walker)? else { continue };
        threads.push(ThreadDump { thread: describe(entry, &pages, now())?, frames });
    }
    Ok(Dump { threads })
}

/// A thread and its frames at one instant; none if it has ended.
fn catch(
    runtime: &Runtime,
    first: Entry,
    walker: &mut Walker,
) -> io::Result<Option<(Entry, Vec<Frame>)>> {
    let mut entry = first;
    for _ in 0..TRIES {
        if entry.state == State::Queued && entry.stat.turns == 0 {
            return Ok(Some((entry, Vec::new())));
        }
        let caught = match entry.state {
            State::Running => running(runtime, &entry),
            State::Helped => helped(runtime, &entry),
            _ => Some((entry.left_at, copy(&entry)?)),
        };
        let Some(again) = census::again(runtime, &entry)? else { return Ok(None) };
        let has_stayed = again.state == entry.state && again.stat.turns == entry.stat.turns;
        if let Some((at, stack)) = caught
            && has_stayed
        {
            let addresses = walker.walk(at, &stack);
            let frames = addresses.into_iter().flat_map(|a| walker.name(a).to_vec()).collect();
            return Ok(Some((entry, frames)));
        }
        entry = again;
    }
    Ok(Some((entry, Vec::new())))
}

/// The stack of a thread that does not run, from where it left on.
fn copy(entry: &Entry) -> io::Result<Vec<u8>> {
    let length = entry.block.saturating_sub(entry.left_at.sp).min(MOST);
    peek::copy_range(entry.left_at.sp, length)
}

type Caught = (crate::arch::Place, Vec<u8>);

/// The stack of a thread that runs on a worker.
fn running(runtime: &Runtime, entry: &Entry) -> Option<Caught> {
    let snapshot = runtime.workers().get(entry.worker?)?.snapshot()?;
    (snapshot.subject == entry.subject()).then_some((snapshot.at, snapshot.stack))
}

/// The stack of a thread that is on a helper.
fn helped(runtime: &Runtime, entry: &Entry) -> Option<Caught> {
    let place = runtime.helpers().place_of(entry.subject())?;
    let length = entry.block.checked_sub(place.sp)?.min(MOST);
    Some((place, peek::copy_range(place.sp, length).ok()?))
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = vec![false; self.threads.len()];
        writeln!(f, "{} green threads", self.threads.len())?;
        for (index, dumped) in self.threads.iter().enumerate() {
            if written[index] {
                continue;
            }
            let same = |other: &ThreadDump| {
                other.thread.state == dumped.thread.state
                    && other.thread.spawned_at == dumped.thread.spawned_at
                    && other.thread.group == dumped.thread.group
                    && other.thread.name.is_none()
                    && dumped.thread.name.is_none()
                    && other.frames == dumped.frames
            };
            let others: Vec<usize> =
                (index + 1..self.threads.len()).filter(|i| same(&self.threads[*i])).collect();
            write!(f, "\n{}", Heading(&dumped.thread))?;
            if !others.is_empty() {
                write!(f, " (and {} more like it)", others.len())?;
            }
            writeln!(f)?;
            dumped.frames.iter().try_for_each(|frame| writeln!(f, "  {frame}"))?;
            writeln!(f, "  spawned at {}", dumped.thread.spawned_at)?;
            others.into_iter().for_each(|i| written[i] = true);
        }
        Ok(())
    }
}

struct Heading<'a>(&'a ThreadInfo);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = self.0;
        write!(f, "thread {}", thread.id.number())?;
        if let Some(name) = &thread.name {
            write!(f, " '{name}'")?;
        }
        write!(f, ": {}", thread.state.name())?;
        if let Some(reason) = thread.state.reason() {
            write!(f, " ({reason})")?;
        }
        write!(
            f,
            ", group '{}', age {:?}, ran {:?} in {} turns, waited for turns {:?}",
            thread.group, thread.age, thread.stat.run_time, thread.stat.turns, thread.stat.run_delay
        )
    }
}
