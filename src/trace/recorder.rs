//! Those who write events: each worker into a ring of its own, everybody else into one that they share.

use super::event::{Kind, NameParts, Record, Recorder, Unpacker, WokenBy};
use super::event::{pack, pack_count, pack_name};
use super::ring::{Packed, Ring};
use super::tracepoint::tracepoint;
use crate::lock::SpinLock;

/// Bytes of a thread's name that are recorded.
const NAME_BYTES: usize = 16;

/// A worker's recorder. To be called on the worker's OS thread, by the worker or by a thread that is pinned, or by the
/// handler if it has interrupted neither; with the time that the worker's clock says.
///
/// Threads are given by their ids.
pub(crate) struct Own(Ring);

impl Own {
    /// Keeps so many events; with 0, none: then all go into one slot, which nobody reads, for lack of a branch.
    pub(crate) fn new(size: usize) -> Own {
        Own(Ring::new(size))
    }

    /// A thread begins a turn, with nobody before it.
    #[inline]
    pub(crate) fn enters(&self, at: u64, thread: u64) {
        self.0.write(pack(at, Kind::Enter, 0, thread));
        tracepoint!(enter, thread);
    }

    /// A thread begins a turn; the one before it has left, for the reason with this code.
    #[inline(always)]
    pub(crate) fn switches(&self, at: u64, reason: u8, next: u64) {
        self.0.write(pack(at, Kind::Switch, reason, next));
        tracepoint!(switch, next, reason);
    }

    /// The thread has left, and nobody follows.
    #[inline]
    pub(crate) fn leaves(&self, at: u64, reason: u8) {
        self.0.write(pack(at, Kind::Leave, reason, 0));
        tracepoint!(leave, reason);
    }

    /// The thread that runs spawns one.
    #[inline]
    pub(crate) fn spawns(&self, at: u64, thread: u64, name: Option<&str>) {
        self.0.write(pack(at, Kind::Spawn, 0, thread));
        tracepoint!(spawn, thread);
        note_name(&self.0, at, name);
    }

    #[inline]
    pub(crate) fn wakes(&self, at: u64, thread: u64, by: WokenBy) {
        let by = by.code();
        self.0.write(pack(at, Kind::Wake, by, thread));
        tracepoint!(wake, thread, by);
    }

    /// The worker's timer has interrupted that thread, which goes on.
    pub(crate) fn ticks(&self, at: u64, thread: u64) {
        self.0.write(pack(at, Kind::Tick, 0, thread));
        tracepoint!(tick, thread);
    }

    /// The worker has taken so many threads from another.
    pub(crate) fn steals(&self, at: u64, from: usize, threads: usize) {
        self.0.write(pack_count(at, Kind::Steal, from, threads));
        tracepoint!(steal, from, threads);
    }

    pub(crate) fn sleeps(&self, at: u64) {
        self.0.write(pack(at, Kind::Sleep, 0, 0));
        tracepoint!(sleep);
    }

    pub(crate) fn awakes(&self, at: u64) {
        self.0.write(pack(at, Kind::Awake, 0, 0));
        tracepoint!(awake);
    }
}

/// The recorder of all who are no worker of the runtime. For anyone who is pinned.
pub(crate) struct Shared {
    ring: Ring,
    /// Held by the writer.
    turn: SpinLock<()>,
}

impl Shared {
    /// Keeps so many events; with 0, none.
    pub(crate) fn new(size: usize) -> Shared {
        Shared { ring: Ring::new(size), turn: SpinLock::new(()) }
    }

    fn write(&self, write: impl FnOnce(&Ring)) {
        if cfg!(uthread_untraced) {
            return;
        }
        self.turn.with_pinned(|()| write(&self.ring));
    }

    /// A thread is spawned, by a green thread or not.
    pub(crate) fn spawns(&self, at: u64, parent: Option<u64>, thread: u64, name: Option<&str>) {
        self.write(|ring| {
            note_doer(ring, at, parent);
            ring.write(pack(at, Kind::Spawn, 0, thread));
            note_name(ring, at, name);
        });
        tracepoint!(spawn, thread);
    }

    /// A thread is woken, by a green thread or not.
    pub(crate) fn wakes(&self, at: u64, waker: Option<u64>, thread: u64) {
        let by = if waker.is_some() { WokenBy::Thread } else { WokenBy::Outside }.code();
        self.write(|ring| {
            note_doer(ring, at, waker);
            ring.write(pack(at, Kind::Wake, by, thread));
        });
        tracepoint!(wake, thread, by);
    }

    /// Threads were taken from a worker, to be given to others.
    pub(crate) fn relieves(&self, at: u64, from: usize, threads: usize) {
        self.write(|ring| ring.write(pack_count(at, Kind::Relieve, from, threads)));
        tracepoint!(relieve, from, threads);
    }

    /// A thread begins on a helper.
    pub(crate) fn hosts(&self, at: u64, thread: u64) {
        self.write(|ring| ring.write(pack(at, Kind::Host, 0, thread)));
        tracepoint!(host, thread);
    }

    /// A thread leaves a helper, and will be queued.
    pub(crate) fn returns(&self, at: u64, thread: u64) {
        self.write(|ring| ring.write(pack(at, Kind::Return, 0, thread)));
        tracepoint!(unhost, thread);
    }
}

fn note_doer(ring: &Ring, at: u64, doer: Option<u64>) {
    if let Some(doer) = doer {
        ring.write(pack(at, Kind::By, 0, doer));
    }
}

#[inline]
fn note_name(ring: &Ring, at: u64, name: Option<&str>) {
    let Some(name) = name else { return };
    let name = &name.as_bytes()[..name.len().min(NAME_BYTES)];
    for part in name.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        ring.write(pack_name(at, bytes));
    }
}

/// A recorder's events as they were at some time.
pub(super) struct Copied {
    recorder: Recorder,
    events: Vec<Packed>,
    overwritten: u64,
}

impl Copied {
    fn of(recorder: Recorder, ring: &Ring) -> Copied {
        let (events, overwritten) = ring.copy();
        Copied { recorder, events, overwritten }
    }

    pub(super) fn of_worker(index: usize, own: &Own) -> Copied {
        Copied::of(Recorder::Worker(index), &own.0)
    }

    pub(super) fn of_others(shared: &Shared) -> Copied {
        Copied::of(Recorder::Other, &shared.ring)
    }

    pub(super) fn overwritten(&self) -> u64 {
        self.overwritten
    }

    pub(super) fn unpack(&self, now: u64, records: &mut Vec<Record>, names: &mut NameParts) {
        let mut unpacker = Unpacker::new(self.recorder, now, self.overwritten > 0);
        self.events.iter().for_each(|event| unpacker.unpack(*event, records, names));
    }
}
