//! What is recorded: how it is packed into two words, and what it says when it is unpacked.
//!
//! ```text
//!  63                                            8 7       0
//! ┌───────────────────────────────────────────────┬─────────┐
//! │ time: nanoseconds, the lower 56 bits          │ kind    │
//! ├─────────┬─────────────────────────────────────┴─────────┤
//! │ detail  │ subject: a thread's id, or numbers            │
//! └─────────┴───────────────────────────────────────────────┘
//!  63     56 55                                            0
//! ```
//!
//! One event may mean several things, since others are known from those before it in the same ring: a switch
//! names the thread that begins and the reason for which the one before it leaves; who wakes or spawns is who
//! runs. What begins in the middle, after events that were overwritten, is told as far as it can be.
//!
//! 56 bits are two years of nanoseconds: the rest of the time is that of the reading. Ids are handed out in batches
//! of a thousand, and 56 bits are as many batches as a million threads per second that spawn take in two years.

use std::fmt;
use std::time::Duration;

use super::ring::Packed;
use crate::reason::WaitReason;
use crate::thread::ThreadId;

const KIND_BITS: u32 = 8;
const DETAIL_BITS: u32 = 8;
/// Where an event is about threads of a worker's, above this many bits of the subject is the worker's number.
const COUNT_BITS: u32 = 32;
const SUBJECT: u64 = (1 << (64 - DETAIL_BITS)) - 1;

/// What an event says. The numbers are for memory only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A thread begins, with nobody before it.
    Enter,
    /// A thread begins, and the one before it leaves; for which reason is the detail.
    Switch,
    /// A thread leaves, and nobody follows.
    Leave,
    Spawn,
    /// A part of the name of the thread that was spawned last: eight bytes.
    Name,
    /// A thread is woken; the detail is by what.
    Wake,
    /// The event that follows was done by this thread. Where nobody runs.
    By,
    Tick,
    /// So many threads were taken from a worker.
    Steal,
    /// So many threads were taken from a worker, for others.
    Relieve,
    Sleep,
    Awake,
    /// A thread begins on a helper.
    Host,
    /// A thread leaves a helper.
    Return,
}

impl Kind {
    const ALL: [Kind; 14] = [
        Kind::Enter,
        Kind::Switch,
        Kind::Leave,
        Kind::Spawn,
        Kind::Name,
        Kind::Wake,
        Kind::By,
        Kind::Tick,
        Kind::Steal,
        Kind::Relieve,
        Kind::Sleep,
        Kind::Awake,
        Kind::Host,
        Kind::Return,
    ];
}

#[inline(always)]
pub(super) fn pack(at: u64, kind: Kind, detail: u8, subject: u64) -> Packed {
    [at << KIND_BITS | kind as u64, u64::from(detail) << (64 - DETAIL_BITS) | subject]
}

/// So many threads of that worker's.
pub(super) fn pack_count(at: u64, kind: Kind, worker: usize, threads: usize) -> Packed {
    pack(at, kind, 0, (worker as u64) << COUNT_BITS | threads as u64)
}

/// Eight bytes of a name.
pub(super) fn pack_name(at: u64, part: [u8; 8]) -> Packed {
    [at << KIND_BITS | Kind::Name as u64, u64::from_ne_bytes(part)]
}

/// Why a green thread left its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It yielded, and stays runnable.
    Yield,
    /// It was interrupted, and stays runnable.
    Interrupt,
    /// It is blocked in the kernel, or about to be, and goes to a helper.
    Block,
    /// It is blocked in the kernel, but there was no helper; it stays runnable, to try again.
    BlockAgain,
    /// It ended.
    End,
    /// It waits for that.
    Wait(WaitReason),
}

impl Reason {
    const YIELD: u8 = 0;
    const INTERRUPT: u8 = 1;
    const BLOCK: u8 = 2;
    const BLOCK_AGAIN: u8 = 3;
    const END: u8 = 4;
    /// And from here on, one for each reason to wait.
    const WAIT: u8 = 8;

    /// As a number of [`DETAIL_BITS`].
    #[inline(always)]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Reason::Yield => Self::YIELD,
            Reason::Interrupt => Self::INTERRUPT,
            Reason::Block => Self::BLOCK,
            Reason::BlockAgain => Self::BLOCK_AGAIN,
            Reason::End => Self::END,
            Reason::Wait(reason) => Self::WAIT + reason as u8,
        }
    }

    fn from_code(code: u8) -> Option<Reason> {
        Some(match code {
            Self::YIELD => Reason::Yield,
            Self::INTERRUPT => Reason::Interrupt,
            Self::BLOCK => Reason::Block,
            Self::BLOCK_AGAIN => Reason::BlockAgain,
            Self::END => Reason::End,
            code => Reason::Wait(wait_reason(code.checked_sub(Self::WAIT)?)?),
        })
    }

    /// Whether a thread that left for this reason is still runnable.
    pub fn stays_runnable(self) -> bool {
        matches!(self, Reason::Yield | Reason::Interrupt | Reason::BlockAgain)
    }
}

// All codes fit: those of what ends a wait begin at the same number.
const _: () = assert!(Reason::WAIT as usize + WaitReason::ALL.len() <= 1 << DETAIL_BITS);
const _: () = assert!(Cause::COMPLETION == Reason::WAIT);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Yield => "yield",
            Reason::Interrupt => "interrupt",
            Reason::Block => "block",
            Reason::BlockAgain => "block again",
            Reason::End => "end",
            Reason::Wait(reason) => reason.name(),
        })
    }
}

fn wait_reason(number: u8) -> Option<WaitReason> {
    WaitReason::ALL.get(usize::from(number)).copied()
}

/// What ended a green thread's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A green thread's notification: it unparked the thread, or it ended and was joined.
    Thread(ThreadId),
    /// A notification of an OS thread's.
    Outside,
    /// Its operation has completed: one of those that [are operations](WaitReason::is_operation).
    Completion(WaitReason),
    /// Its sleep is over.
    Timer,
    /// Nobody notified it in time.
    Timeout,
    /// It was notified before it had parked.
    Before,
}

impl Cause {
    const THREAD: u8 = 0;
    const OUTSIDE: u8 = 1;
    const TIMER: u8 = 2;
    const TIMEOUT: u8 = 3;
    const BEFORE: u8 = 4;
    const COMPLETION: u8 = 8;
}

/// [`Cause`], as the recorder of the event knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WokenBy {
    /// The thread that runs, or that was just named.
    Thread,
    Outside,
    Completion(WaitReason),
    Timer,
    Timeout,
    Before,
}

impl WokenBy {
    pub(super) fn code(self) -> u8 {
        match self {
            WokenBy::Thread => Cause::THREAD,
            WokenBy::Outside => Cause::OUTSIDE,
            WokenBy::Timer => Cause::TIMER,
            WokenBy::Timeout => Cause::TIMEOUT,
            WokenBy::Before => Cause::BEFORE,
            WokenBy::Completion(operation) => Cause::COMPLETION + operation as u8,
        }
    }
}

/// Who recorded an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Recorder {
    /// The worker of that number.
    Worker(usize),
    /// Another OS thread: a helper, the monitor, one of the program's, or another runtime's worker.
    Other,
}

/// An event with its time and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// When, as `CLOCK_MONOTONIC` tells the time. Workers' clocks differ by well below a microsecond.
    pub at: Duration,
    /// By whom it was recorded. Those of one worker are in the order in which they happened.
    pub recorder: Recorder,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A thread begins a turn on the worker.
    #[non_exhaustive]
    SwitchIn {
        /// The thread.
        thread: ThreadId,
    },
    /// A thread's turn on the worker is over.
    #[non_exhaustive]
    SwitchOut {
        /// The thread.
        thread: ThreadId,
        /// Why it left.
        reason: Reason,
    },
    /// A thread was created.
    #[non_exhaustive]
    Spawn {
        /// The new thread.
        thread: ThreadId,
        /// The green thread that created it; none if that was no green one.
        parent: Option<ThreadId>,
    },
    /// A thread's wait ended: it is runnable.
    #[non_exhaustive]
    Wake {
        /// The thread that had waited.
        thread: ThreadId,
        /// What ended its wait.
        cause: Cause,
    },
    /// The worker's timer interrupted a thread, which goes on. (One that does not, leaves for [`Reason::Interrupt`] or
    /// [`Reason::Block`].)
    #[non_exhaustive]
    Tick {
        /// The thread that runs.
        thread: ThreadId,
    },
    /// The worker took threads from another one.
    #[non_exhaustive]
    Steal {
        /// Number of the worker from which they were taken.
        from: usize,
        /// How many.
        threads: u64,
    },
    /// The monitor took threads from a worker that is stuck, to give them to others.
    #[non_exhaustive]
    Relieve {
        /// Number of the worker from which they were taken.
        from: usize,
        /// How many.
        threads: u64,
    },
    /// The worker has nothing to do and sleeps.
    Sleep,
    /// The worker is awake again.
    Awake,
    /// A helper goes on with a thread, whose calls may block from now on.
    #[non_exhaustive]
    Host {
        /// The thread.
        thread: ThreadId,
    },
    /// A thread has left its helper, and is runnable.
    #[non_exhaustive]
    Return {
        /// The thread.
        thread: ThreadId,
    },
}

/// Unpacks the events of one ring.
pub(super) struct Unpacker {
    recorder: Recorder,
    /// The time of the reading, nanoseconds.
    now: u64,
    running: Known,
    spawned: Option<ThreadId>,
}

/// The thread that runs, as far as is known.
#[derive(Clone, Copy)]
enum Known {
    /// What would tell was overwritten.
    No,
    Nobody,
    Thread(ThreadId),
}

/// The bytes of names found among the events, in their order.
pub(super) type NameParts = Vec<(ThreadId, [u8; 8])>;

impl Unpacker {
    pub(super) fn new(recorder: Recorder, now: u64, overwritten: bool) -> Unpacker {
        let running = if overwritten { Known::No } else { Known::Nobody };
        Unpacker { recorder, now, running, spawned: None }
    }

    /// The time of which these are the lower bits: the one that is nearest to the reading's.
    fn time(&self, first: u64) -> Duration {
        const BEYOND: u32 = 64 - KIND_BITS;
        let behind = (self.now << KIND_BITS).wrapping_sub(first & !0xff).cast_signed() >> KIND_BITS;
        debug_assert!(behind.unsigned_abs() < 1 << BEYOND);
        Duration::from_nanos(self.now.wrapping_add_signed(-behind))
    }

    /// Adds what an event says.
    pub(super) fn unpack(
        &mut self,
        [first, second]: Packed,
        records: &mut Vec<Record>,
        names: &mut NameParts,
    ) {
        let at = self.time(first);
        let Some(kind) = Kind::ALL.get((first & 0xff) as usize) else { return };
        let detail = (second >> (64 - DETAIL_BITS)) as u8;
        let subject = second & SUBJECT;
        let (from, threads) = ((subject >> COUNT_BITS) as usize, subject & ((1 << COUNT_BITS) - 1));
        let thread = ThreadId::from_number(subject);
        let recorder = self.recorder;
        let mut note = |event| records.push(Record { at, recorder, event });
        match (kind, thread) {
            (Kind::Enter, Some(thread)) => {
                note(Event::SwitchIn { thread });
                self.running = Known::Thread(thread);
            }
            (Kind::Switch, Some(next)) => {
                if let (Known::Thread(thread), Some(reason)) =
                    (self.running, Reason::from_code(detail))
                {
                    note(Event::SwitchOut { thread, reason });
                }
                note(Event::SwitchIn { thread: next });
                self.running = Known::Thread(next);
            }
            (Kind::Leave, _) => {
                if let (Known::Thread(thread), Some(reason)) =
                    (self.running, Reason::from_code(detail))
                {
                    note(Event::SwitchOut { thread, reason });
                }
                self.running = Known::Nobody;
            }
            (Kind::By, Some(thread)) => self.running = Known::Thread(thread),
            (Kind::Spawn, Some(thread)) => {
                self.spawned = Some(thread);
                match self.take_doer() {
                    Known::Thread(parent) => note(Event::Spawn { thread, parent: Some(parent) }),
                    Known::Nobody => note(Event::Spawn { thread, parent: None }),
                    Known::No => {}
                }
            }
            (Kind::Name, _) => {
                names.extend(self.spawned.map(|thread| (thread, second.to_ne_bytes())));
            }
            (Kind::Wake, Some(thread)) => {
                let doer = if detail == Cause::THREAD { self.take_doer() } else { Known::No };
                let cause = match (detail, doer) {
                    (_, Known::Thread(waker)) => Some(Cause::Thread(waker)),
                    (Cause::THREAD, _) => None,
                    (Cause::OUTSIDE, _) => Some(Cause::Outside),
                    (Cause::TIMER, _) => Some(Cause::Timer),
                    (Cause::TIMEOUT, _) => Some(Cause::Timeout),
                    (Cause::BEFORE, _) => Some(Cause::Before),
                    (code, _) => code
                        .checked_sub(Cause::COMPLETION)
                        .and_then(wait_reason)
                        .map(Cause::Completion),
                };
                if let Some(cause) = cause {
                    note(Event::Wake { thread, cause });
                }
            }
            (Kind::Tick, Some(thread)) => note(Event::Tick { thread }),
            (Kind::Steal, _) => note(Event::Steal { from, threads }),
            (Kind::Relieve, _) => note(Event::Relieve { from, threads }),
            (Kind::Sleep, _) => {
                self.running = Known::Nobody;
                note(Event::Sleep);
            }
            (Kind::Awake, _) => note(Event::Awake),
            (Kind::Host, Some(thread)) => note(Event::Host { thread }),
            (Kind::Return, Some(thread)) => note(Event::Return { thread }),
            // Thread 0 does not exist.
            (_, None) => {}
        }
    }

    /// Who does what the event says. On a worker that is who runs; elsewhere who was named just before.
    fn take_doer(&mut self) -> Known {
        match self.recorder {
            Recorder::Worker(_) => self.running,
            Recorder::Other => std::mem::replace(&mut self.running, Known::Nobody),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn unpacked(recorder: Recorder, now: u64, lost: bool, events: &[Packed]) -> Vec<Record> {
        let mut unpacker = Unpacker::new(recorder, now, lost);
        let (mut records, mut names) = (vec![], vec![]);
        events.iter().for_each(|event| unpacker.unpack(*event, &mut records, &mut names));
        records
    }

    fn id(number: u64) -> ThreadId {
        ThreadId::from_number(number).unwrap()
    }

    #[test]
    fn reasons_are_read_as_written() {
        let plain =
            [Reason::Yield, Reason::Interrupt, Reason::Block, Reason::BlockAgain, Reason::End];
        let waits = WaitReason::ALL.iter().copied().map(Reason::Wait);
        for reason in plain.into_iter().chain(waits) {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code(7), None);
        assert_eq!(Reason::from_code(u8::MAX), None);
    }

    #[test]
    fn kinds_have_the_numbers_by_which_they_are_found() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn times_that_do_not_fit_are_found_again_near_the_time_of_reading() {
        let now = (5 << 56) + 100;
        for at in [now - 1, now, now + 50, now - 100, now - 101, now - (1 << 54)] {
            let event = pack(at, Kind::Awake, 0, 0);
            let record = unpacked(Recorder::Other, now, false, &[event])[0];
            assert_eq!(record.at, Duration::from_nanos(at));
        }
    }

    #[test]
    fn who_leaves_and_who_wakes_is_who_ran() {
        let events = [
            pack(1, Kind::Enter, 0, 7),
            pack(2, Kind::Wake, WokenBy::Thread.code(), 8),
            pack(3, Kind::Switch, Reason::Wait(WaitReason::Park).code(), 8),
            pack(4, Kind::Leave, Reason::End.code(), 0),
        ];
        let found: Vec<Event> = unpacked(Recorder::Worker(0), 9, false, &events)
            .into_iter()
            .map(|record| record.event)
            .collect();
        let expected = [
            Event::SwitchIn { thread: id(7) },
            Event::Wake { thread: id(8), cause: Cause::Thread(id(7)) },
            Event::SwitchOut { thread: id(7), reason: Reason::Wait(WaitReason::Park) },
            Event::SwitchIn { thread: id(8) },
            Event::SwitchOut { thread: id(8), reason: Reason::End },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_only_lost_events_could_tell_is_left_out() {
        let events = [
            pack(1, Kind::Wake, WokenBy::Thread.code(), 8),
            pack(2, Kind::Wake, WokenBy::Timer.code(), 9),
            pack(3, Kind::Switch, Reason::Wait(WaitReason::Park).code(), 8),
        ];
        let found: Vec<Event> = unpacked(Recorder::Worker(0), 9, true, &events)
            .into_iter()
            .map(|record| record.event)
            .collect();
        let timer = Event::Wake { thread: id(9), cause: Cause::Timer };
        assert_eq!(found, [timer, Event::SwitchIn { thread: id(8) }]);
    }

    #[test]
    fn elsewhere_who_wakes_is_named_before_and_only_once() {
        let events = [
            pack(1, Kind::By, 0, 3),
            pack(1, Kind::Wake, WokenBy::Thread.code(), 8),
            pack(2, Kind::Spawn, 0, 9),
        ];
        let found = unpacked(Recorder::Other, 9, true, &events);
        assert_eq!(found[0].event, Event::Wake { thread: id(8), cause: Cause::Thread(id(3)) });
        assert_eq!(found[1].event, Event::Spawn { thread: id(9), parent: None });
    }
}
