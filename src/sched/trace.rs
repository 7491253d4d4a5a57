//! What happened, as a list of events: written by whoever runs threads, read by the checker.
//!
//! Names of threads are numbers that are never used twice. Events are in the order in which they took
//! effect; those of one instant, too.

use super::{GroupId, Policy};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Event {
    /// Nanoseconds since the beginning.
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// Why a thread left its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Yielded,
    /// Interrupted: its slice is used up.
    UsedUp,
    /// Interrupted in the middle of its slice.
    Interrupted,
    Blocked,
    Ended,
}

impl Why {
    pub(crate) fn stays_runnable(self) -> bool {
        !matches!(self, Why::Blocked | Why::Ended)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// The worker takes threads from now on.
    Start {
        worker: usize,
    },
    /// The worker takes none from now on; what it had queued is stolen by others.
    Stop {
        worker: usize,
    },
    /// Something was said about a group.
    Weight {
        group: GroupId,
        policy: Policy,
    },
    /// A new thread is queued.
    Spawn {
        worker: usize,
        thread: usize,
        group: GroupId,
        movable: bool,
    },
    /// A thread that waited is queued.
    Wake {
        worker: usize,
        thread: usize,
    },
    /// The worker serves a group from now on, and says how much virtual time that group has used.
    Choose {
        worker: usize,
        group: GroupId,
        virtual_time: u128,
    },
    /// A thread is taken out of a worker's queue: to run there, or to move elsewhere.
    Take {
        worker: usize,
        thread: usize,
        moves: bool,
    },
    /// A thread is taken out of the queue of a worker that is stuck, to go on on a helper: one that has not begun or
    /// was interrupted, whoever waits in front of it.
    Relieve {
        worker: usize,
        thread: usize,
    },
    /// A thread that moves is queued, behind the fresh ones.
    Put {
        worker: usize,
        thread: usize,
    },
    /// A thread that moves goes to a helper. Its wait there ends with a wake-up.
    Lend {
        thread: usize,
    },
    /// The worker serves no group.
    Rest {
        worker: usize,
    },
    SwitchIn {
        worker: usize,
        thread: usize,
    },
    SwitchOut {
        worker: usize,
        thread: usize,
        why: Why,
    },
    /// A group has used up its quota.
    Throttled {
        group: GroupId,
    },
    Released {
        group: GroupId,
    },
}
