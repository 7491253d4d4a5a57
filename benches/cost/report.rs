//! The figures as tables for people, and as JSON.

use std::fmt;
use std::io;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::case::MOST_ROUNDS;
use crate::goals::Goal;
use crate::machine::Machine;
use crate::measure::{Plan, Samples};
use crate::{memory, sweep, time};

/// All that a run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// That of the crate.
    version: &'static str,
    pub(crate) machine: Machine,
    pub(crate) plan: Plan,
    /// Nanoseconds.
    pub(crate) floors: Vec<time::Floor>,
    /// Nanoseconds.
    pub(crate) time: Vec<time::Row>,
    /// Bytes per thread.
    pub(crate) memory: Vec<memory::Row>,
    /// Nanoseconds.
    pub(crate) sweep: Vec<sweep::Point>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) unmeasured: Vec<Unmeasured>,
}

/// What became of a row.
pub(crate) struct Outcome<R> {
    pub(crate) name: String,
    pub(crate) result: io::Result<R>,
}

/// A row that could not be measured.
#[derive(Debug, Serialize)]
pub(crate) struct Unmeasured {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Report {
    pub(crate) fn new(machine: Machine, plan: Plan) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            plan,
            floors: Vec::new(),
            time: Vec::new(),
            memory: Vec::new(),
            sweep: Vec::new(),
            goals: Vec::new(),
            unmeasured: Vec::new(),
        }
    }

    /// Keeps the rows that were measured, and remembers why others were not.
    pub(crate) fn note_failures<R>(&mut self, outcomes: Vec<Outcome<R>>) -> Vec<R> {
        let mut rows = Vec::new();
        for Outcome { name, result } in outcomes {
            match result {
                Ok(row) => rows.push(row),
                Err(error) => self.unmeasured.push(Unmeasured { name, reason: error.to_string() }),
            }
        }
        rows
    }

    fn floor_table(&self) -> Table {
        let mut table = table(&["floor", "ns"]);
        for floor in &self.floors {
            table.add_row([floor.name.into(), spread(&floor.samples, figure)]);
        }
        table
    }

    fn time_table(&self) -> Table {
        let columns =
            ["time", "uthread [ns]", "std [ns]", "uthread/std", "floor [ns]", "uthread/floor"];
        let mut table = table(&columns);
        for row in &self.time {
            table.add_row([
                row.name.into(),
                spread(&row.comparison.uthread, figure),
                spread(&row.comparison.std, figure),
                ratio(row.uthread_to_std),
                row.comparison
                    .floor
                    .as_ref()
                    .map_or_else(String::new, |floor| spread(floor, figure)),
                row.uthread_to_floor.map_or_else(String::new, ratio),
            ]);
        }
        table
    }

    fn memory_table(&self) -> Table {
        let columns = [
            "memory per thread",
            "resident [B]",
            "page tables [B]",
            "both [B]",
            "both/floor",
            "kernel [B]",
            "all [B]",
            "all/std",
            "map lines",
        ];
        let mut table = table(&columns);
        for row in &self.memory {
            table.add_row([
                row.name.clone(),
                grouped(row.resident.median),
                grouped(row.page_tables.median),
                spread(&row.user, grouped),
                row.user_to_floor.map_or_else(String::new, ratio),
                grouped(row.kernel.median),
                grouped(row.all.median),
                row.all_to_std.map_or_else(String::new, ratio),
                grouped(row.map_lines as f64),
            ]);
        }
        table
    }

    fn sweep_table(&self) -> Table {
        let columns = [
            "by number of threads",
            "threads",
            "first life [ns]",
            "life [ns]",
            "switch [ns]",
            "wake-up [ns]",
        ];
        let mut table = table(&columns);
        for point in &self.sweep {
            let mut cells = vec![point.kind.name(), grouped(point.threads as f64)];
            let samples = [&point.first_life, &point.life, &point.switch, &point.wake];
            cells.extend(samples.map(|samples| spread(samples, figure)));
            table.add_row(cells);
        }
        table
    }

    /// Where the figures come from.
    pub(crate) fn origin(&self) -> String {
        let Machine {
            date,
            cpu,
            cores,
            memory_mib,
            kernel,
            glibc,
            rustc,
            load_average,
            max_map_count,
        } = &self.machine;
        let (version, memory) = (self.version, grouped(*memory_mib));
        let Plan { rounds, stretch } = self.plan;
        let few = rounds.min(MOST_ROUNDS);
        [
            format!("date    {date}, load average {load_average}, uthread {version}"),
            format!("cpu     {cpu}, {cores} cores, {memory} MiB"),
            format!("system  Linux {kernel}, glibc {glibc}, {rustc}, vm.max_map_count {max_map_count}"),
            format!("rounds  {rounds} of {stretch:?} ({few} in processes of their own); figures are medians (min–max), ratios are of medians"),
        ]
        .map(|line| line + "\n")
        .concat()
    }

    /// Those that have rows, each with an empty line after it.
    pub(crate) fn tables(&self) -> String {
        let tables = [
            (self.floors.len(), self.floor_table()),
            (self.time.len(), self.time_table()),
            (self.memory.len(), self.memory_table()),
            (self.sweep.len(), self.sweep_table()),
        ];
        let filled = tables.iter().filter(|(rows, _)| *rows > 0);
        filled.map(|(_, table)| format!("{table}\n\n")).collect()
    }

    /// What has to be said of single rows.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> {
        let time = self.time.iter().flat_map(|row| {
            row.comparison.remarks.iter().map(|remark| format!("{}: {remark}", row.name))
        });
        let limits = self
            .memory
            .iter()
            .filter_map(|row| row.limit.as_ref().map(|limit| format!("{}: {limit}", row.name)));
        let ends = self.sweep.iter().filter_map(|point| {
            let limit = point.limit.as_ref()?;
            Some(format!("{}, {}: {limit}", sweep::NAME, point.kind.name()))
        });
        let unmeasured =
            self.unmeasured.iter().map(|row| format!("{}: not measured: {}", row.name, row.reason));
        time.chain(limits).chain(ends).chain(unmeasured)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.origin(), self.tables())?;
        self.remarks().try_for_each(|remark| writeln!(f, "{remark}"))
    }
}

/// An empty table; its numbers are to stand to the right.
fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(columns);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `median (min–max)`.
pub(crate) fn spread(samples: &Samples, figure: fn(f64) -> String) -> String {
    let [median, min, max] = [samples.median, samples.min, samples.max].map(figure);
    if min == max { median } else { format!("{median} ({min}–{max})") }
}

/// A ratio; well below one it reads better as a fraction.
fn ratio(ratio: f64) -> String {
    if ratio < 0.1 { format!("1/{}", figure(1.0 / ratio)) } else { figure(ratio) }
}

/// Three digits or more.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => grouped(value),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// To the nearest integer, in groups of three digits.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value <= -0.5 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
