//! The rows that are bytes: what a thread costs while it does nothing but wait.
//!
//! **Problem.** Allocators, stack pools and the kernel keep what was once used, so a measurement made
//! after another one in the same process finds memory warm and threads nearly free.
//!
//! **Choice.** Each measurement has a process of its own: the benchmark executes itself anew with a
//! [`Case`] and reads a [`Parked`] from its output. `yard` is what happens there.

use std::env;
use std::io;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::floors::{self, page_size};
use crate::machine::kib;
use crate::measure::{Plan, Samples};
use crate::report::{Outcome, grouped};
use crate::threads::{Green, Os};
use crate::yard::{Parked, park_threads, suspend_coroutines};

/// What to measure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The floor: a suspended coroutine on a stack without a guard page.
    Coroutine,
    /// A thread of `std`, with the stack it gets unasked.
    Std,
    /// A green thread with a stack of so many bytes, or with the one it gets unasked.
    Uthread { stack: Option<usize> },
}

/// The stack size of the small stacks, that of the floor.
const SMALL: Kind = Kind::Uthread { stack: Some(floors::STACK) };
const DEFAULT: Kind = Kind::Uthread { stack: None };

/// The goals are about these.
pub(crate) const MILLION_SMALL: Case = Case { kind: SMALL, threads: 1_000_000 };
pub(crate) const MILLION_DEFAULT: Case = Case { kind: DEFAULT, threads: 1_000_000 };

/// The floor, std's threads and green ones: fewer if it is to be `quick`.
pub(crate) fn cases(quick: bool) -> Vec<Case> {
    let (others, green): (_, &[usize]) = match quick {
        true => (1_000, &[1_000, 10_000]),
        false => (10_000, &[10_000, 100_000, 1_000_000]),
    };
    let case = |kind, threads| Case { kind, threads };
    let mut cases = vec![case(Kind::Coroutine, others), case(Kind::Std, others)];
    for kind in [SMALL, DEFAULT] {
        cases.extend(green.iter().map(|threads| case(kind, *threads)));
    }
    cases
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let kib = |bytes| format!("{} KiB stacks", bytes / 1024);
        let (who, stacks) = match self.kind {
            Kind::Coroutine => ("bare coroutines", kib(floors::STACK)),
            Kind::Std => ("std", "default stacks".into()),
            Kind::Uthread { stack } => ("uthread", stack.map_or("default stacks".into(), kib)),
        };
        format!("parked, {who}, {stacks}, {}", grouped(self.threads as f64))
    }

    /// More bytes than all the threads will take, to tell beforehand that they do not fit.
    fn bound(&self) -> f64 {
        let pages = match self.kind {
            Kind::Coroutine | Kind::Uthread { .. } => 2,
            // Stack, signal stack, thread block; their page tables; the kernel's stack and records.
            Kind::Std => 16,
        };
        (self.threads * pages * page_size()) as f64
    }

    /// Measures it in a process of its own.
    fn measure(&self) -> io::Result<Parked> {
        let mib = |bytes: f64| grouped(bytes / 1024.0 / 1024.0);
        let (bound, available) = (self.bound(), 1024.0 * kib("/proc/meminfo", "MemAvailable")?);
        if bound > available {
            let text = format!("it may take {} MiB of {}", mib(bound), mib(available));
            return Err(io::Error::other(text));
        }
        let case = serde_json::to_string(self)?;
        let output = Command::new(env::current_exe()?).args([CHILD_FLAG, &case]).output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{}: {}", output.status, told.trim())));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The same in this process, which should have done nothing yet.
    pub(crate) fn measure_here(&self) -> io::Result<Parked> {
        match self.kind {
            Kind::Coroutine => suspend_coroutines(self.threads),
            Kind::Std => park_threads(&Os, self.threads),
            Kind::Uthread { stack: None } => park_threads(&Green::new(1)?, self.threads),
            Kind::Uthread { stack: Some(bytes) } => {
                park_threads(&Green::with_stacks(bytes)?, self.threads)
            }
        }
    }
}

/// The option by which the benchmark tells itself to measure one case; its value is JSON.
pub(crate) const CHILD_FLAG: &str = "--parked";

/// Rounds beyond this tell nothing new: bytes vary by a thousandth, and a million threads take long.
const MOST_ROUNDS: usize = 3;

/// Measures the cases in turns.
pub(crate) fn in_turns(cases: Vec<Case>, plan: &Plan) -> Vec<Outcome<Row>> {
    let mut results: Vec<io::Result<Vec<Parked>>> = cases.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..plan.rounds.min(MOST_ROUNDS) {
        for (case, result) in cases.iter().zip(&mut results) {
            // What failed once is not tried again.
            let Ok(rounds) = result else { continue };
            eprintln!("{}", case.name());
            match case.measure() {
                Ok(parked) => rounds.push(parked),
                Err(error) => *result = Err(error),
            }
        }
    }
    let outcome = |(case, result): (&Case, io::Result<_>)| Outcome {
        name: case.name(),
        result: result.map(|rounds| Row::new(case, rounds)),
    };
    let mut outcomes: Vec<_> = cases.iter().zip(results).map(outcome).collect();
    add_ratios(outcomes.iter_mut().filter_map(|outcome| outcome.result.as_mut().ok()).collect());
    outcomes
}

/// Puts the rows of uthread beside the others.
fn add_ratios(mut rows: Vec<&mut Row>) {
    let of = |kind| rows.iter().find(|row| row.kind == kind);
    let std = of(Kind::Std).map(|row| row.all.median);
    let floor = of(Kind::Coroutine).map(|row| row.user.median);
    for row in rows.iter_mut().filter(|row| matches!(row.kind, Kind::Uthread { .. })) {
        row.all_to_std = std.map(|std| row.all.median / std);
        row.user_to_floor = floor.map(|floor| row.user.median / floor);
    }
}

/// All rounds of one case.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) threads: usize,
    pub(crate) resident: Samples,
    pub(crate) page_tables: Samples,
    /// Resident and page tables.
    pub(crate) user: Samples,
    pub(crate) kernel: Samples,
    /// User and kernel.
    pub(crate) all: Samples,
    pub(crate) map_lines: usize,
    /// Why there are fewer threads than asked for.
    pub(crate) limit: Option<String>,
    /// All bytes, beside those of a thread of `std`.
    pub(crate) all_to_std: Option<f64>,
    /// User bytes, beside those of a bare coroutine.
    pub(crate) user_to_floor: Option<f64>,
}

impl Row {
    fn new(case: &Case, mut rounds: Vec<Parked>) -> Row {
        let samples =
            |bytes: fn(&Parked) -> f64| Samples::from(rounds.iter().map(bytes).collect::<Vec<_>>());
        Row {
            name: case.name(),
            kind: case.kind,
            threads: rounds.iter().map(|parked| parked.threads).min().expect("at least one round"),
            resident: samples(|parked| parked.resident),
            page_tables: samples(|parked| parked.page_tables),
            user: samples(|parked| parked.resident + parked.page_tables),
            kernel: samples(|parked| parked.kernel),
            all: samples(|parked| parked.resident + parked.page_tables + parked.kernel),
            map_lines: rounds
                .iter()
                .map(|parked| parked.map_lines)
                .max()
                .expect("at least one round"),
            limit: rounds.iter_mut().find_map(|parked| parked.limit.take()),
            all_to_std: None,
            user_to_floor: None,
        }
    }
}
