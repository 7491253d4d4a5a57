//! What happened, as a list of events: written by whoever runs threads, read by the checker.
//!
//! Names of threads are numbers that are never used twice. Events are in the order in which they took
//! effect; those of one instant, too.

use crate::sched::{GroupId, Policy};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    /// Nanoseconds since the beginning.
    pub(super) at: u64,
    pub(super) what: What,
}

/// Why a thread left its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Yielded,
    /// Interrupted: its slice is used up.
    UsedUp,
    /// Interrupted in the middle of its slice.
    Interrupted,
    Blocked,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
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
    SwitchIn {
        worker: usize,
        thread: usize,
    },
    SwitchOut {
        worker: usize,
        thread: usize,
        why: Why,
    },
    /// A queued thread moves to the end of the thief's fresh ones.
    Steal {
        thief: usize,
        victim: usize,
        thread: usize,
    },
    /// A group has used up its quota.
    Throttled {
        group: GroupId,
    },
    Released {
        group: GroupId,
    },
}
