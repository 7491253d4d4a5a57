//! All threads, with their frames.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::Location;

use super::frames::{Frame, Walker};
use super::{ThreadInfo, ThreadState, describe, usage};
use crate::context::peek;
use crate::preempt::seat::Seat;
use crate::time::now;
use crate::worker::census::{self, Entry};
use crate::worker::{Runtime, State};

/// Bytes of a stack that are looked at, from the stack pointer on.
const MOST: usize = 256 << 10;
/// System calls that go on after a signal (signal(7)). Of threads in others only the innermost frames are shown,
/// for to know all takes the frame pointer, and that a signal.
const RESTARTED: [libc::c_long; 11] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_ioctl,
    libc::SYS_openat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_futex,
];
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
/// their number. What lies between a thread's first function and the function that it was spawned with is left out,
/// unless the alternate form (`{:#}`) is asked for.
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
    let now = now();
    for entry in census::take(runtime)? {
        let Some((entry, frames)) = catch(runtime, entry, &mut walker)? else { continue };
        threads.push(ThreadDump { thread: describe(entry, &pages, now)?, frames });
    }
    Ok(Dump { threads })
}

/// The thread with that number and its frames; none if it has ended.
#[cfg(feature = "inspect")]
pub(super) fn take_one(runtime: &Runtime, number: u64) -> io::Result<Option<ThreadDump>> {
    let Some(entry) = census::find(runtime, number)? else { return Ok(None) };
    let caught = catch(runtime, entry, &mut Walker::new())?;
    let pages = usage::PageMap::open()?;
    let describe =
        |(entry, frames)| Ok(ThreadDump { thread: super::describe(entry, &pages, now())?, frames });
    caught.map(describe).transpose()
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
        let Some(again) = census::again(runtime, &entry) else { return Ok(None) };
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

type Caught = (crate::arch::Position, Vec<u8>);

/// The stack of a thread that runs on a worker.
fn running(runtime: &Runtime, entry: &Entry) -> Option<Caught> {
    ask(&runtime.workers().get(entry.worker?)?.seat, entry)
}

/// Has a thread that runs there interrupted, and its stack copied.
fn ask(seat: &Seat, entry: &Entry) -> Option<Caught> {
    let snapshot = seat.snapshot().ok()?;
    (snapshot.subject == entry.subject()).then_some((snapshot.at, snapshot.stack))
}

/// The stack of a thread that is on a helper.
fn helped(runtime: &Runtime, entry: &Entry) -> Option<Caught> {
    runtime.helpers().with_seat_of(entry.subject(), |seat| match seat.system_call() {
        Some(call) if !RESTARTED.contains(&call.number) => {
            let length = entry.block.checked_sub(call.at.sp)?.min(MOST);
            Some((call.at, peek::copy_range(call.at.sp, length).ok()?))
        }
        _ => ask(seat, entry),
    })
}

/// What threads without names that are written once have in common.
type Likeness<'a> = (ThreadState, &'a str, &'static Location<'static>, Vec<usize>);

impl ThreadDump {
    fn likeness(&self) -> Likeness<'_> {
        let addresses = self.frames.iter().map(|frame| frame.address).collect();
        (self.thread.state, &self.thread.group, self.thread.spawned_at, addresses)
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut like: HashMap<Likeness<'_>, usize> = HashMap::new();
        for dumped in self.threads.iter().filter(|d| d.thread.name.is_none()) {
            *like.entry(dumped.likeness()).or_default() += 1;
        }
        writeln!(f, "{} green threads", self.threads.len())?;
        for dumped in &self.threads {
            let more = match &dumped.thread.name {
                Some(_) => 0,
                None => match like.remove(&dumped.likeness()) {
                    Some(count) => count - 1,
                    // Written with the first of them.
                    None => continue,
                },
            };
            write!(f, "\n{}", Heading(&dumped.thread))?;
            if more > 0 {
                write!(f, " (and {more} more like it)")?;
            }
            writeln!(f)?;
            let is_end = |frame: &&Frame| {
                let name = frame.function.as_deref().unwrap_or_default();
                !f.alternate() && name.contains("__rust_begin_short_backtrace")
            };
            let shown = dumped.frames.iter().position(|frame| is_end(&frame));
            let shown = &dumped.frames[..shown.unwrap_or(dumped.frames.len())];
            shown.iter().try_for_each(|frame| writeln!(f, "  {frame}"))?;
            writeln!(f, "  spawned at {}", dumped.thread.spawned_at)?;
        }
        Ok(())
    }
}

struct Heading<'a>(&'a ThreadInfo);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = self.0;
        write!(f, "thread {}", thread.id.as_u64())?;
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
            thread.group,
            thread.age,
            thread.stat.run_time,
            thread.stat.turns,
            thread.stat.run_delay
        )
    }
}
