//! Programs for the simulation.

use std::fmt;

use crate::sched::{GroupId, Policy};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Compute(u64),
    Sleep(u64),
    Yield,
    /// Waits for a [`Step::Wake`], unless there was one since the last time.
    Park,
    /// Wakes the thread of that number, in the order of their creation.
    Wake(usize),
    /// Spawns a thread that computes for so long.
    Spawn(GroupId, u64),
}

/// Steps, and how often they are repeated before the thread ends.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) rounds: usize,
}

impl Script {
    pub(crate) fn once(steps: Vec<Step>) -> Script {
        Script { steps, rounds: 1 }
    }

    pub(crate) fn forever(steps: Vec<Step>) -> Script {
        Script { steps, rounds: usize::MAX }
    }

    /// Computes without end.
    pub(crate) fn hog() -> Script {
        Script::forever(vec![Step::Compute(1 << 40)])
    }

    /// Computes and sleeps by turns.
    pub(crate) fn bursts(compute: u64, sleep: u64) -> Script {
        Script::forever(vec![Step::Compute(compute), Step::Sleep(sleep)])
    }

    pub(crate) fn step(&self, number: usize) -> Option<Step> {
        let length = self.steps.len();
        (length > 0 && number / length < self.rounds).then(|| self.steps[number % length])
    }
}

/// What happens from outside.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    SetPolicy(GroupId, Policy),
    /// New threads; those that are movable are dealt out to the workers, from that one on.
    Add {
        group: GroupId,
        script: Script,
        count: usize,
        worker: usize,
        movable: bool,
    },
    /// The threads of a group end as soon as they run.
    Remove(GroupId),
    /// A worker takes no threads, until it is resumed.
    Pause(usize),
    Resume(usize),
    /// A worker is found stuck, and relieved of threads that can go on on helpers.
    Relieve(usize),
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) workers: usize,
    /// Nanoseconds, like all times.
    pub(crate) slice: u64,
    /// Workers are late by that at the most.
    pub(crate) overshoot: u64,
    pub(crate) seed: u64,
    pub(crate) length: u64,
    pub(crate) commands: Vec<(u64, Command)>,
}

/// A line for each command: what is printed of a program that fails is read by somebody.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { workers, slice, overshoot, seed, length, commands } = self;
        writeln!(f, "{workers} workers, slice {slice}, overshoot {overshoot}, seed {seed}:")?;
        for (at, command) in commands {
            writeln!(f, "{at:>12} {command:?}")?;
        }
        write!(f, "{length:>12} end")
    }
}

impl Program {
    /// An empty one.
    pub(crate) fn new(workers: usize, length: u64) -> Program {
        let slice = 1_000_000;
        Program { workers, slice, overshoot: slice / 4, seed: 1, length, commands: Vec::new() }
    }

    /// How long a thread runs before a wake-up ends its turn.
    pub(crate) fn grace(&self) -> u64 {
        (self.slice / 8).max(20_000)
    }

    pub(crate) fn then(mut self, at: u64, command: Command) -> Program {
        self.commands.push((at, command));
        self
    }

    /// Says something about a group at the beginning.
    pub(crate) fn group(self, group: usize, policy: Policy) -> Program {
        self.then(0, Command::SetPolicy(GroupId::new(group), policy))
    }

    /// Threads that are there from the beginning.
    pub(crate) fn threads(self, group: usize, count: usize, script: Script) -> Program {
        self.threads_at(group, count, script, 0)
    }

    /// Threads that are there from the beginning, dealt out from that worker on.
    pub(crate) fn threads_at(
        self,
        group: usize,
        count: usize,
        script: Script,
        worker: usize,
    ) -> Program {
        let group = GroupId::new(group);
        self.then(0, Command::Add { group, script, count, worker, movable: true })
    }
}

/// Numbers that look random (SplitMix64), the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % (most + 1)
    }
}
