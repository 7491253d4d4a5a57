//! All threads, with their frames.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::num::NonZero;
use std::panic::Location;
use std::sync::Arc;

use framehop::FrameAddress;

use super::frames::{Frame, Walker};
use super::{ThreadInfo, ThreadState, describe, usage};
use crate::arch::Position;
use crate::context::peek;
use crate::preempt::probe::Missed;
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
    /// blocked where no signal reaches it, or was never found twice in the same turn. Only the innermost ones of a
    /// thread that is, with its OS thread, in a system call that a signal would end (see [`dump`](fn@crate::dump)).
    ///
    /// Threads that are in the same functions share them.
    pub frames: Arc<[Frame]>,
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
    let mut shared: HashMap<Vec<u64>, Arc<[Frame]>> = HashMap::new();
    let now = now();
    for entry in census::take(runtime)? {
        let Some((entry, addresses)) = catch(runtime, entry, &mut walker)? else { continue };
        let key = addresses.iter().map(|address| address.address()).collect();
        let frames = shared.entry(key).or_insert_with(|| walker.names(&addresses)).clone();
        threads.push(ThreadDump { thread: describe(entry, &pages, now)?, frames });
    }
    Ok(Dump { threads })
}

/// Writes what the threads do, one by one, without keeping it. Of those that are alike, the first is written, and the
/// number of the others at the end.
pub(super) fn write(runtime: &Runtime, to: &mut impl io::Write) -> io::Result<()> {
    let pages = usage::PageMap::open()?;
    let mut walker = Walker::new();
    let mut like: HashMap<u64, (NonZero<u64>, usize)> = HashMap::new();
    let now = now();
    let entries = census::take(runtime)?;
    // Each at once: there is no buffer, and others may write there, too.
    let mut say = |text: String| to.write_all(text.as_bytes());
    say(format!("uthread: runtime '{}': {} green threads\n", runtime.name(), entries.len()))?;
    for entry in entries {
        let Some((entry, addresses)) = catch(runtime, entry, &mut walker)? else { continue };
        let frames = walker.names(&addresses);
        let dumped = ThreadDump { thread: describe(entry, &pages, now)?, frames };
        if dumped.thread.name.is_none() {
            let (first, more) =
                like.entry(dumped.likeness_in_short()).or_insert((dumped.number(), 0));
            if *first != dumped.number() {
                *more += 1;
                continue;
            }
        }
        say(Written { dumped: &dumped, more: 0, alternate: false }.to_string())?;
    }
    let mut like: Vec<_> = like.into_values().filter(|(_, more)| *more > 0).collect();
    like.sort_unstable();
    like.into_iter()
        .try_for_each(|(first, more)| say(format!("\n{more} more like thread {first}\n")))
}

/// The thread with that number and its frames; none if it has ended.
#[cfg(feature = "inspect")]
pub(super) fn take_one(runtime: &Runtime, number: u64) -> io::Result<Option<ThreadDump>> {
    let Some(entry) = census::find(runtime, number)? else { return Ok(None) };
    let mut walker = Walker::new();
    let Some((entry, addresses)) = catch(runtime, entry, &mut walker)? else { return Ok(None) };
    let thread = describe(entry, &usage::PageMap::open()?, now())?;
    Ok(Some(ThreadDump { thread, frames: walker.names(&addresses) }))
}

/// A thread and the addresses of its frames at one instant; none if it has ended.
fn catch(
    runtime: &Runtime,
    first: Entry,
    walker: &mut Walker,
) -> io::Result<Option<(Entry, Vec<FrameAddress>)>> {
    let mut entry = first;
    for _ in 0..TRIES {
        if entry.state == State::Queued && entry.has_never_left() {
            return Ok(Some((entry, Vec::new())));
        }
        let caught = match entry.state {
            State::Running => running(runtime, &entry),
            State::Helped => helped(runtime, &entry)?,
            _ => Ok((entry.left_at, copy(&entry)?)),
        };
        let Some(again) = census::again(runtime, &entry) else { return Ok(None) };
        let has_stayed = again.is_where_it_was(&entry);
        entry = again;
        match caught {
            Ok((at, stack)) if has_stayed && !stack.is_empty() => {
                return Ok(Some((entry, walker.walk(at, &stack))));
            }
            // It would keep silent again, for as long.
            Err(Missed::Silent) if has_stayed => break,
            _ => {}
        }
    }
    Ok(Some((entry, Vec::new())))
}

type Caught = Result<(Position, Vec<u8>), Missed>;

/// The stack of a thread that does not run, from where it left on.
fn copy(entry: &Entry) -> io::Result<Vec<u8>> {
    if entry.has_never_left() {
        return Ok(Vec::new());
    }
    let length = entry.block.saturating_sub(entry.left_at.sp).min(MOST);
    peek::copy_range(entry.left_at.sp, length)
}

/// The stack of a thread that runs on a worker.
fn running(runtime: &Runtime, entry: &Entry) -> Caught {
    let worker = entry.worker.and_then(|index| runtime.workers().get(index));
    seated(&worker.ok_or(Missed::Elsewhere)?.seat, entry)
}

/// The stack of a thread that is on a helper, or on its way there.
fn helped(runtime: &Runtime, entry: &Entry) -> io::Result<Caught> {
    let on_helper = || {
        let helpers = runtime.helpers();
        helpers.with_seat_of(entry.subject(), |seat| Some(seated(seat, entry)))
    };
    if let Some(caught) = on_helper() {
        return Ok(caught);
    }
    let caught = Ok((entry.left_at, copy(entry)?));
    Ok(on_helper().unwrap_or(caught))
}

/// The stack of a thread that is on that seat.
fn seated(seat: &Seat, entry: &Entry) -> Caught {
    let call = seat.system_call();
    if let Some(call) = call
        && !RESTARTED.contains(&call.number)
    {
        let length = entry.block.checked_sub(call.at.sp).ok_or(Missed::Elsewhere)?.min(MOST);
        let stack = peek::copy_range(call.at.sp, length).map_err(|_| Missed::Elsewhere)?;
        let is_there = entry.stack.contains(call.at.sp) && seat.system_call() == Some(call);
        return if is_there { Ok((call.at, stack)) } else { Err(Missed::Elsewhere) };
    }
    match seat.snapshot() {
        Ok(snapshot) if snapshot.subject == entry.subject() => Ok((snapshot.at, snapshot.stack)),
        // Who is in no system call may wait for a processor.
        Err(Missed::Silent) if call.is_some() => Err(Missed::Silent),
        _ => Err(Missed::Elsewhere),
    }
}

/// What threads without names that are written once have in common.
type Likeness<'a> = (ThreadState, &'a str, &'static Location<'static>, Vec<usize>);

impl ThreadDump {
    fn likeness(&self) -> Likeness<'_> {
        let addresses = self.frames.iter().map(|frame| frame.address).collect();
        (self.thread.state, &self.thread.group, self.thread.spawned_at, addresses)
    }

    /// Equal for those that are alike, and for others with a likelihood of 2⁻⁶⁴.
    fn likeness_in_short(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.likeness().hash(&mut hasher);
        hasher.finish()
    }

    fn number(&self) -> NonZero<u64> {
        self.thread.id.as_u64()
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
            Written { dumped, more, alternate: f.alternate() }.fmt(f)?;
        }
        Ok(())
    }
}

/// One thread, as it is written, behind an empty line.
struct Written<'a> {
    dumped: &'a ThreadDump,
    /// Others like it.
    more: usize,
    alternate: bool,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { dumped, more, alternate } = self;
        write!(f, "\n{}", Heading(&dumped.thread))?;
        if *more > 0 {
            write!(f, " (and {more} more like it)")?;
        }
        writeln!(f)?;
        let is_end = |frame: &Frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            !alternate && name.contains("__rust_begin_short_backtrace")
        };
        let shown = dumped.frames.iter().position(is_end);
        let shown = &dumped.frames[..shown.unwrap_or(dumped.frames.len())];
        shown.iter().try_for_each(|frame| writeln!(f, "  {frame}"))?;
        writeln!(f, "  spawned at {}", dumped.thread.spawned_at)
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
