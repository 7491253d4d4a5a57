//! What the figures are meant to be.

use std::fmt;

use serde::Serialize;

use crate::case::Case;
use crate::memory::{self, MILLION_DEFAULT, MILLION_SMALL, Row};
use crate::report::{Report, figure};
use crate::time;

#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    row: String,
    bound: Bound,
    unit: &'static str,
    /// Nothing if the row was not measured.
    value: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(crate) fn missed(&self) -> bool {
        self.value.is_some_and(|value| match self.bound {
            Bound::AtMost(most) => value > most,
            Bound::AtLeast(least) => value < least,
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.value {
            None => "not measured",
            Some(_) if self.missed() => "MISSED",
            Some(_) => "met",
        };
        let (word, bound) = match self.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let Goal { row, unit, .. } = self;
        write!(f, "{verdict:<12}  {row}: {word} {} {unit}", figure(bound))?;
        self.value.map_or(Ok(()), |value| write!(f, "; it is {}", figure(value)))
    }
}

/// All goals, against what was measured.
pub(crate) fn goals(report: &Report) -> Vec<Goal> {
    let time = |row: &str, bound, unit, value: fn(&time::Row) -> Option<f64>| {
        let measured = report.time.iter().find(|measured| measured.name == row);
        Goal { row: row.into(), bound, unit, value: measured.and_then(value) }
    };
    let cheaper = |row, times| {
        time(row, Bound::AtLeast(times), "times cheaper than std", |row| {
            Some(1.0 / row.uthread_to_std)
        })
    };
    let memory = |case: Case, bound, unit, value: fn(&Row) -> f64| {
        let row = memory::name(&case);
        let measured = report.memory.iter().find(|measured| measured.name == row);
        // A million fewer is another row.
        let complete = measured.filter(|measured| measured.threads == case.threads);
        Goal { row, bound: Bound::AtMost(bound), unit, value: complete.map(value) }
    };
    let bytes =
        |case, most| memory(case, most, "B resident and page tables", |row| row.user.median);
    let lines = |case, most| memory(case, most, "lines of map", |row| row.map_lines as f64);
    vec![
        time(time::YIELD_OF_TWO, Bound::AtMost(3.0), "times the floor", |row| row.uthread_to_floor),
        cheaper(time::YIELD_OF_TWO, 30.0),
        cheaper(time::SPAWN_ONE, 100.0),
        cheaper(time::SPAWN_BATCH, 100.0),
        bytes(MILLION_SMALL, 4915.0),
        bytes(MILLION_DEFAULT, 5939.0),
        lines(MILLION_SMALL, 100.0),
        lines(MILLION_DEFAULT, 100.0),
    ]
}
