//! The rows that are bytes: what a thread costs while it does nothing but wait.
//!
//! `yard` is where they are measured, in a process for each round of each row.

use std::io;

use serde::Serialize;

use crate::case::{Case, Kind, Task, delegate_in_turns};
use crate::measure::{Plan, Samples};
use crate::report::Outcome;
use crate::yard::Parked;

/// The goals are about these.
pub(crate) const MILLION_SMALL: Case = Case { kind: Kind::SMALL, threads: 1_000_000 };
pub(crate) const MILLION_DEFAULT: Case = Case { kind: Kind::DEFAULT, threads: 1_000_000 };

/// The floor, std's threads and green ones: fewer if it is to be `quick`.
pub(crate) fn cases(quick: bool) -> Vec<Case> {
    let (others, green): (_, &[usize]) = match quick {
        true => (1_000, &[1_000, 10_000]),
        false => (10_000, &[10_000, 100_000, 1_000_000]),
    };
    let case = |kind, threads| Case { kind, threads };
    let mut cases = vec![case(Kind::Coroutine, others), case(Kind::Std, others)];
    for kind in [Kind::SMALL, Kind::DEFAULT] {
        cases.extend(green.iter().map(|threads| case(kind, *threads)));
    }
    cases
}

/// Those of either list, each once, by kind and number.
pub(crate) fn united(mut cases: Vec<Case>, others: Vec<Case>) -> Vec<Case> {
    cases.extend(others);
    cases.sort_by_key(|case| (case.kind, case.threads));
    cases.dedup();
    cases
}

pub(crate) fn name(case: &Case) -> String {
    Task::Memory(*case).name()
}

/// Measures the cases in turns.
pub(crate) fn in_turns(cases: Vec<Case>, plan: &Plan) -> Vec<Outcome<Row>> {
    let tasks: Vec<_> = cases.iter().copied().map(Task::Memory).collect();
    let results = delegate_in_turns::<Parked>(&tasks, plan);
    let outcome = |(case, result): (&Case, io::Result<_>)| Outcome {
        name: name(case),
        result: result.map(|rounds| Row::new(case, rounds)),
    };
    let mut outcomes: Vec<_> = cases.iter().zip(results).map(outcome).collect();
    add_ratios(outcomes.iter_mut().filter_map(|outcome| outcome.result.as_mut().ok()).collect());
    outcomes
}

/// Puts the rows of uthread beside the others of about as many threads.
fn add_ratios(mut rows: Vec<&mut Row>) {
    let known = |kind, bytes: fn(&Row) -> f64| -> Vec<(usize, f64)> {
        let rows = rows.iter().filter(|row| row.kind == kind);
        rows.map(|row| (row.threads, bytes(row))).collect()
    };
    let std = known(Kind::Std, |row| row.all.median);
    let floor = known(Kind::Coroutine, |row| row.user.median);
    for row in rows.iter_mut().filter(|row| matches!(row.kind, Kind::Uthread { .. })) {
        let nearest = |others: &[(usize, f64)]| {
            let nearest = others.iter().min_by_key(|other| other.0.abs_diff(row.threads));
            nearest.map(|(_, bytes)| *bytes)
        };
        let (std, floor) = (nearest(&std), nearest(&floor));
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
        let samples = |bytes: fn(&Parked) -> f64| rounds.iter().map(bytes).collect();
        Row {
            name: name(case),
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
