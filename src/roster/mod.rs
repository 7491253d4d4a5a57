//! Who the green threads are, what they do, and where they are in their code.
//!
//! Whoever runs a server must be able to ask what its threads do, and why one of them is late, while it serves. So
//! nothing here stops anybody: lists are made from copies of control blocks (`worker::census`), stacks from copies of
//! stacks. Only a thread that runs is interrupted, for as long as the copying takes.
//!
//! - [`frames`]: functions that threads are in. - [`usage`]: memory of stacks. - [`mod@dump`]: all of it as text.
//! - [`signal`]: dumps that are asked for from outside. - `survey`: all threads at a
//!   glance, for those who show some of them.

mod dump;
mod frames;
mod signal;
#[cfg(feature = "inspect")]
mod survey;
mod usage;

use std::io;
use std::panic::Location;
use std::time::Duration;

pub use dump::{Dump, ThreadDump};
pub use frames::Frame;
pub(crate) use signal::as_environment_says;
pub use signal::dump_on_signal;
#[cfg(feature = "inspect")]
pub(crate) use survey::{Names, Survey};
pub use usage::{StackTotals, StackUsage};

use crate::reason::WaitReason;
use crate::runtime::{self, Runtime};
use crate::stats::SchedStat;
use crate::thread::ThreadId;
use crate::time::now;
use crate::worker::census::{self, Entry};
use crate::worker::{self, State};

/// What a green thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadState {
    /// It runs on a worker.
    Running,
    /// It waits for its turn.
    Runnable,
    /// It waits for something else.
    Waiting(WaitReason),
    /// It is blocked in the kernel, or in [`blocking`](crate::blocking), on a helper or on its way there.
    Blocked,
}

impl ThreadState {
    /// Its name, without what is waited for.
    pub fn name(self) -> &'static str {
        match self {
            ThreadState::Running => "running",
            ThreadState::Runnable => "runnable",
            ThreadState::Waiting(_) => "waiting",
            ThreadState::Blocked => "blocked",
        }
    }

    /// What it waits for, if it does.
    pub fn reason(self) -> Option<WaitReason> {
        match self {
            ThreadState::Waiting(reason) => Some(reason),
            _ => None,
        }
    }
}

/// A green thread as it was at some instant. Made by [`threads`] and [`Runtime::threads`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// Its identifier.
    pub id: ThreadId,
    /// Its name, if it was given one; the first 256 bytes.
    pub name: Option<String>,
    /// What it was doing.
    pub state: ThreadState,
    /// The name of its group.
    pub group: String,
    /// The index of the worker where it ran last, or was to run; none before its first turn and on a helper.
    pub worker: Option<usize>,
    /// Where in the source it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// Time since it was spawned.
    pub age: Duration,
    /// What it has used, its present turn or wait for one included.
    pub stat: SchedStat,
    /// The memory of its stack.
    pub stack: StackUsage,
}

/// The green threads of the calling thread's runtime; on other threads, of the one that
/// [`spawn`](crate::spawn) uses there. None if that was never started.
///
/// In the order in which they were spawned, as far as they were by one thread. Nobody is stopped meanwhile: a thread
/// that is spawned or ends during the call is in the list or is not.
///
/// It takes a microsecond or two for each thread.
///
/// # Errors
///
/// The kernel does not let the process look at itself: there is no `/proc`, or a filter (seccomp(2)) forbids
/// process_vm_readv(2).
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let waits = uthread::Builder::new().name("patient".into()).spawn(uthread::park)?;
/// # while uthread::stats().parks == 0 { std::thread::yield_now() }
/// let threads = uthread::threads()?;
/// let patient = threads.iter().find(|t| t.name.as_deref() == Some("patient")).unwrap();
/// assert_eq!(patient.state, uthread::ThreadState::Waiting(uthread::WaitReason::Park));
/// assert_eq!(patient.spawned_at.file(), file!());
/// waits.thread().unpark();
/// # waits.join().unwrap();
/// # Ok(())
/// # }
/// ```
pub fn threads() -> io::Result<Vec<ThreadInfo>> {
    runtime::with_own(threads_of).unwrap_or_else(|| Ok(Default::default()))
}

/// The green threads of the same runtime as [`threads`], with the frames of each.
///
/// # Errors
///
/// As for [`threads`].
///
/// # Blocking
///
/// Names of functions are read from the program's file, which takes some milliseconds the first time, and up to
/// seconds if there is much debug information. Threads that run are interrupted for some ten microseconds each, one
/// after the other; others notice nothing.
///
/// A thread that is, with its OS thread, in a system call which a signal would end with `EINTR` (signal(7): `poll` and
/// `epoll_wait` most of all) is not interrupted. It may be if it enters one at that very moment, or if the call is
/// one of those that go on after a signal, but for a time limit: on a futex, as in `sem_timedwait`, or on a socket.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let thread = uthread::spawn(uthread::park);
/// # while uthread::stats().parks == 0 { std::thread::yield_now() }
/// eprintln!("{}", uthread::dump()?);
/// # thread.thread().unpark();
/// # thread.join().unwrap();
/// # Ok(())
/// # }
/// ```
pub fn dump() -> io::Result<Dump> {
    runtime::with_own(dump::take).unwrap_or_else(|| Ok(Default::default()))
}

/// What the stacks of the same runtime's threads as [`threads`] take in sum, and what they would take as OS threads.
///
/// # Errors
///
/// As for [`threads`].
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let thread = uthread::spawn(uthread::park);
/// # while uthread::stats().parks == 0 { std::thread::yield_now() }
/// let stacks = uthread::stacks()?;
/// assert_eq!(stacks.threads, 1);
/// assert!(stacks.green.resident < stacks.os.resident);
/// thread.thread().unpark();
/// # thread.join().unwrap();
/// # Ok(())
/// # }
/// ```
pub fn stacks() -> io::Result<StackTotals> {
    runtime::with_own(stacks_of).unwrap_or_else(|| Ok(Default::default()))
}

fn stacks_of(runtime: &worker::Runtime) -> io::Result<StackTotals> {
    let pages = usage::PageMap::open()?;
    let stacks = census::take_unnamed(runtime).into_iter().map(|entry| pages.usage(entry.stack));
    stacks.collect::<io::Result<Vec<_>>>().map(|stacks| StackTotals::of(&stacks))
}

fn threads_of(runtime: &worker::Runtime) -> io::Result<Vec<ThreadInfo>> {
    let pages = usage::PageMap::open()?;
    let now = now();
    census::take(runtime)?.into_iter().map(|entry| describe(entry, &pages, now)).collect()
}

fn describe(entry: Entry, pages: &usage::PageMap, now: u64) -> io::Result<ThreadInfo> {
    Ok(ThreadInfo {
        id: ThreadId::from_number(entry.number).expect("numbers begin at 1"),
        state: state_of(&entry),
        name: entry.name,
        group: worker::group::name_of(entry.group),
        worker: entry.worker,
        spawned_at: entry.spawned_at,
        age: Duration::from_nanos(now.saturating_sub(entry.born)),
        stat: entry.stat,
        stack: pages.usage(entry.stack)?,
    })
}

fn state_of(entry: &Entry) -> ThreadState {
    match entry.state {
        State::Running => ThreadState::Running,
        State::Waiting => ThreadState::Waiting(entry.reason),
        State::Helped => ThreadState::Blocked,
        State::New | State::Queued | State::Ended => ThreadState::Runnable,
    }
}

impl Runtime {
    /// The runtime's green threads; see [`threads`](fn@crate::threads).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn threads(&self) -> io::Result<Vec<ThreadInfo>> {
        threads_of(self.inner())
    }

    /// What the stacks of the runtime's green threads take; see [`stacks`](fn@crate::stacks).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stacks(&self) -> io::Result<StackTotals> {
        stacks_of(self.inner())
    }

    /// The runtime's green threads, with the frames of each; see [`dump`](fn@crate::dump).
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Blocking
    ///
    /// As there.
    pub fn dump(&self) -> io::Result<Dump> {
        dump::take(self.inner())
    }
}
