//! The flight recorder: what the scheduler did last, recorded always, read when somebody asks.
//!
//! **Problem.** Why was that request late? By the time that somebody asks, it is over. Counters say how often
//! things happen, not in which order. A recording that has to be switched on beforehand misses what does not
//! happen twice; so it must be cheap enough to be always on, which at a few dozen nanoseconds per switch
//! leaves two or three for it.
//!
//! **Alternatives.** Logging, or the spans of `tracing`, cost hundreds of nanoseconds and allocate, which workers must not
//! do between two green threads. Tracepoints of the kernel's (USDT, uprobes) cost nothing until they are used, and
//! then a trap each; and they, too, must be switched on beforehand (with the feature `usdt` they are there, too). One buffer for all workers gives one order, at the
//! price of a contended cache line per switch. Events of variable size say more and are found again only from the
//! beginning, which is what is overwritten.
//!
//! **Choice.** Each worker has a *ring* of events of two words, which are overwritten when it is full. A
//! switch is **one** event, which says who goes on and why the one before left; the time in it is the one that the
//! loop has read anyway. It takes three plain stores and no lock. Others (helpers, the monitor, OS threads
//! that spawn and wake) share one more ring, behind a spin lock. A reader copies the rings while everybody
//! goes on and throws away what was overwritten meanwhile.
//!
//! In a build with `--cfg uthread_untraced`, which `cargo bench --bench instruments` makes to find out what it
//! costs, nothing is recorded.
//!
//! The times of one worker never go back. Those of two workers are compared with care: their clocks differ by
//! well below a microsecond (`time::clock`), and a reader comes to one ring after the other.
//!
//! - `ring`: the copy that is whole, with its proof. - `event`: what events say, and how that is packed.
//!   - `recorder`: who writes. - `perfetto`: the file for the viewer. - `tracepoint`: for tracers from outside.
//!
//! # Examples
//!
//! ```
//! use uthread::trace::Event;
//!
//! let runtime = uthread::Runtime::builder().workers(1).build()?;
//! let thread = runtime.run(|| {
//!     let thread = uthread::spawn(uthread::yield_now);
//!     let id = thread.thread().id();
//!     thread.join().unwrap();
//!     id
//! });
//! let trace = runtime.trace();
//! let turns = trace.events().filter(|r| matches!(r.event, Event::SwitchIn { thread: t, .. } if t == thread));
//! assert_eq!(turns.count(), 2);
//! # Ok::<(), std::io::Error>(())
//! ```

mod event;
#[cfg(feature = "perfetto")]
mod perfetto;
mod recorder;
mod ring;
mod tracepoint;

use std::collections::HashMap;
use std::fmt;

pub(crate) use event::WokenBy;
pub use event::{Cause, Event, Reason, Record, Recorder};
pub(crate) use recorder::{Own, Shared};

use crate::thread::ThreadId;
use crate::time::now;
use crate::worker::Runtime;
use recorder::Copied;

/// Events that a worker keeps unless [`RuntimeBuilder::trace_events`](crate::RuntimeBuilder::trace_events) says
/// otherwise: 128 KiB, some tenth of a second of a busy server's.
pub(crate) const DEFAULT_EVENTS: usize = 8192;

/// The newest events of a runtime's scheduler, at the time when the trace was taken.
///
/// Made by [`trace`](fn@crate::trace) and [`Runtime::trace`](crate::Runtime::trace).
#[derive(Clone)]
pub struct Trace {
    /// By time.
    records: Vec<Record>,
    names: HashMap<ThreadId, String>,
    overwritten: u64,
    workers: usize,
    /// What the runtime is called.
    process: String,
}

impl Trace {
    /// Copies what the recorders of a runtime hold.
    pub(crate) fn of(runtime: &Runtime) -> Trace {
        let workers = runtime.workers();
        let mut copied: Vec<Copied> = workers
            .iter()
            .enumerate()
            .map(|(i, worker)| Copied::of_worker(i, &worker.trace))
            .collect();
        copied.push(Copied::of_others(runtime.trace()));
        let mut trace = Trace::empty();
        trace.workers = workers.len();
        trace.process = runtime.name().to_owned();
        trace.overwritten = copied.iter().map(Copied::overwritten).sum();
        let (now, mut names) = (now(), Vec::new());
        for events in &copied {
            events.unpack(now, &mut trace.records, &mut names);
        }
        // Stable: those of one worker stay in their order.
        trace.records.sort_by_key(|record| record.at);
        let mut parts: HashMap<ThreadId, Vec<u8>> = HashMap::new();
        for (thread, part) in names {
            let bytes = part.into_iter().filter(|byte| *byte != 0);
            parts.entry(thread).or_default().extend(bytes);
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        trace.names = parts.into_iter().map(|(thread, bytes)| (thread, text(bytes))).collect();
        trace
    }

    /// That of a runtime that never started.
    pub(crate) fn empty() -> Trace {
        Trace {
            records: Vec::new(),
            names: HashMap::new(),
            overwritten: 0,
            workers: 0,
            process: String::new(),
        }
    }

    /// The events, by time.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Record> + '_ {
        self.records.iter().copied()
    }

    /// How many older events were overwritten since the runtime's start. (A switch is one: [`Event::SwitchOut`] and
    /// [`Event::SwitchIn`] together.)
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// Number of workers of the runtime.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The name of a thread, if it was given one with [`set_name`](Self::set_name), or if it has one and its spawn
    /// is in the trace: then the first 16 bytes.
    pub fn name(&self, thread: ThreadId) -> Option<&str> {
        self.names.get(&thread).map(String::as_str)
    }

    /// Names a thread in this trace, for whoever knows names that are longer or older than the trace.
    pub fn set_name(&mut self, thread: ThreadId, name: impl Into<String>) {
        self.names.insert(thread, name.into());
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("events", &self.records.len())
            .field("overwritten", &self.overwritten)
            .finish_non_exhaustive()
    }
}
