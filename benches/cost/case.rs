//! Who is measured, and in how great a number: what the rows of memory and of the sweep are about.
//!
//! **Problem.** Allocators, stack pools and the kernel keep what was once used, so a measurement made
//! after another one in the same process finds memory warm and threads nearly free.
//!
//! **Choice.** Each measurement of many threads has a process of its own: the benchmark executes itself
//! anew with a [`Task`] and reads the outcome from its output.

use std::env;
use std::io;
use std::process::Command;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::floors::{self, page_size};
use crate::machine::kib;
use crate::measure::Plan;
use crate::report::grouped;
use crate::{pace, sweep, yard};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The floor: a suspended coroutine on a stack without a guard page.
    Coroutine,
    /// A thread of `std`, with the stack it gets unasked.
    Std,
    /// A green thread with a stack of so many bytes, or with the one it gets unasked.
    Uthread { stack: Option<usize> },
}

impl Kind {
    /// A green thread with a stack of the floor's size.
    pub(crate) const SMALL: Kind = Kind::Uthread { stack: Some(floors::STACK) };
    pub(crate) const DEFAULT: Kind = Kind::Uthread { stack: None };

    pub(crate) fn name(self) -> String {
        let kib = |bytes| format!("{} KiB stacks", bytes / 1024);
        let (who, stacks) = match self {
            Kind::Coroutine => ("bare coroutines", kib(floors::STACK)),
            Kind::Std => ("std", "default stacks".into()),
            Kind::Uthread { stack } => ("uthread", stack.map_or("default stacks".into(), kib)),
        };
        format!("{who}, {stacks}")
    }

    /// More bytes than one takes, to tell beforehand whether many fit.
    pub(crate) fn bound(self) -> usize {
        let pages = match self {
            Kind::Coroutine | Kind::Uthread { .. } => 2,
            // Stack, signal stack, thread block; their page tables; the kernel's stack and records.
            Kind::Std => 16,
        };
        pages * page_size()
    }
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{}, {}", self.kind.name(), grouped(self.threads as f64))
    }

    /// Nothing if they may need more memory than there is.
    pub(crate) fn check_memory(&self) -> io::Result<()> {
        let mib = |bytes: f64| grouped(bytes / 1024.0 / 1024.0);
        let bound = (self.threads * self.kind.bound()) as f64;
        let available = 1024.0 * kib("/proc/meminfo", "MemAvailable")?;
        if bound > available {
            let text = format!("it may take {} MiB of {}", mib(bound), mib(available));
            return Err(io::Error::other(text));
        }
        Ok(())
    }
}

/// What a process of its own measures.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A [`yard::Parked`].
    Memory(Case),
    /// A [`pace::Pace`], for so long each figure.
    Pace(Case, Duration),
}

/// The option by which the benchmark gives itself a task; its value is JSON.
pub(crate) const TASK_FLAG: &str = "--task";

impl Task {
    pub(crate) fn name(&self) -> String {
        match self {
            Task::Memory(case) => format!("parked, {}", case.name()),
            Task::Pace(case, _) => format!("{}, {}", sweep::NAME, case.name()),
        }
    }

    /// Has a new process do it.
    fn delegate<R: DeserializeOwned>(&self) -> io::Result<R> {
        let (Task::Memory(case) | Task::Pace(case, _)) = self;
        case.check_memory()?;
        let task = serde_json::to_string(self)?;
        let output = Command::new(env::current_exe()?).args([TASK_FLAG, &task]).output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{}: {}", output.status, told.trim())));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Does it in this process, which should have done nothing yet, and prints what came of it.
    pub(crate) fn perform(&self) -> io::Result<()> {
        match self {
            Task::Memory(case) => print(&yard::measure(case)?),
            Task::Pace(case, stretch) => print(&pace::measure(case, *stretch)?),
        }
    }
}

/// Rounds beyond this tell little: bytes vary by a thousandth, and a million threads take long.
pub(crate) const MOST_ROUNDS: usize = 3;

/// Has new processes do the tasks in turns, for the plan's rounds, but not too many.
pub(crate) fn delegate_in_turns<R: DeserializeOwned>(
    tasks: &[Task],
    plan: &Plan,
) -> Vec<io::Result<Vec<R>>> {
    let mut results: Vec<io::Result<Vec<R>>> = tasks.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..plan.rounds.min(MOST_ROUNDS) {
        for (task, result) in tasks.iter().zip(&mut results) {
            // What failed once is not tried again.
            let Ok(outcomes) = result else { continue };
            eprintln!("{}", task.name());
            match task.delegate() {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => *result = Err(error),
            }
        }
    }
    results
}

fn print(outcome: &impl Serialize) -> io::Result<()> {
    Ok(serde_json::to_writer(io::stdout(), outcome)?)
}
