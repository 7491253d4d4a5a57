//! The figures: tables for people, JSON for programs, and a page with plots.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::claims::{Claim, claims};
use crate::machine::Machine;
use crate::rig::{NICENESS, WORK};
use crate::{crowd, figures, mixed, waiting, workers};

/// All that a run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    machine: Machine,
    /// What was found to take the CPU time of a request.
    rounds: u32,
    pub(crate) waiting: Vec<waiting::Row>,
    pub(crate) crowd: Vec<crowd::Row>,
    pub(crate) mixed: Vec<mixed::Row>,
    pub(crate) workers: Vec<workers::Row>,
    pub(crate) claims: Vec<Claim>,
    /// Cells that could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: Machine, rounds: u32) -> Report {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let given = if arguments.is_empty() {
            String::new()
        } else {
            format!(" -- {}", arguments.join(" "))
        };
        Report {
            command: format!("cargo run --release --example lab{given}"),
            machine,
            rounds,
            waiting: Vec::new(),
            crowd: Vec::new(),
            mixed: Vec::new(),
            workers: Vec::new(),
            claims: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Compares the figures with the story.
    pub(crate) fn conclude(&mut self) {
        self.claims = claims(self);
    }

    /// Answers that were lost or wrong, in all measurements, and the first of them.
    pub(crate) fn errors(&self) -> (u64, Option<String>) {
        let waiting = self.waiting.iter().map(|row| (row.errors, &row.first_error));
        let crowd = self.crowd.iter().map(|row| (row.errors, &row.first_error));
        let phases = self.mixed.iter().flat_map(|row| [&row.idle, &row.loaded]);
        let mixed = phases.map(|phase| (phase.errors, &phase.first_error));
        let workers = self.workers.iter().map(|row| (row.errors, &row.first_error));
        let all = waiting.chain(crowd).chain(mixed).chain(workers);
        all.fold((0, None), |(errors, first), (more, example)| {
            (errors + more, first.or_else(|| example.clone()))
        })
    }

    /// Writes figures, plots and a page with all of it.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        serde_json::to_writer_pretty(File::create(folder.join("lab.json"))?, self)?;
        let mut page = File::create(folder.join("lab.md"))?;
        writeln!(page, "# The lab\n\n```text\n{}```\n", self.origin())?;
        for figure in figures::all(self)? {
            fs::write(folder.join(&figure.file), &figure.svg)?;
            writeln!(page, "![{}]({})\n", figure.title, figure.file)?;
        }
        write!(page, "{}", self.tables("## "))?;
        writeln!(page, "## Claims\n")?;
        self.claims.iter().try_for_each(|claim| writeln!(page, "- {claim}"))?;
        writeln!(page, "\n## Notes\n")?;
        self.notes().iter().try_for_each(|note| writeln!(page, "- {note}"))
    }

    fn origin(&self) -> String {
        let Machine { date, cpu, cores, memory_mib, kernel, load_average } = &self.machine;
        format!(
            "{}\n{date}, load average {load_average} at the start\n\
             {cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}\n",
            self.command
        )
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!(
                "The service's priority is lowered by {NICENESS} (nice), in every way, so that load and external \
                 service go first: they stand for other machines."
            ),
            format!(
                "CPU work of a request: what takes {WORK:?} here, measured anew for each class and place, {} rounds of BLAKE2s at first.",
                self.rounds
            ),
            "One request is one connection. p50 and p99 are of requests answered within the stretch that was \
             measured; of one at a time, those that waited longest are still in the queue then."
                .into(),
            "Memory: resident, page tables, and stacks in the kernel.".into(),
            "The lab adds one OS thread to each process, which tells what is used.".into(),
        ];
        notes.extend(self.crowd.iter().filter_map(|row| {
            Some(format!("{}: fewer requests at once: {}", row.way.name(), row.limit.as_ref()?))
        }));
        notes.extend(self.failures.iter().map(|failure| format!("not measured: {failure}")));
        notes
    }

    fn tables(&self, heading: &str) -> String {
        let tables = [
            ("Requests that wait and compute", self.waiting_table(), self.waiting.is_empty()),
            ("Requests that wait together", self.crowd_table(), self.crowd.is_empty()),
            ("Requests beside images", self.mixed_table(), self.mixed.is_empty()),
            ("Workers of green threads", self.workers_table(), self.workers.is_empty()),
        ];
        let filled = tables.iter().filter(|(_, _, is_empty)| !is_empty);
        filled.map(|(title, table, _)| format!("{heading}{title}\n\n{table}\n\n")).collect()
    }

    fn waiting_table(&self) -> Table {
        let mut table = table(&[
            "wait",
            "on",
            "way",
            "under way",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU %",
            "wasted %",
            "memory",
            "threads",
            "kernel switches",
            "green switches",
            "errors",
        ]);
        for row in &self.waiting {
            table.add_row([
                row.class.name(),
                row.place.name(),
                row.way.name().into(),
                row.in_flight.to_string(),
                figure(row.requests_per_second),
                of_answers(row.answered, row.p50_ms),
                of_answers(row.answered, row.p99_ms),
                figure(row.cpu_percent),
                figure(row.idle_percent),
                bytes(row.memory_bytes as f64),
                row.threads.to_string(),
                figure(row.kernel_switches_per_request),
                figure(row.green_switches_per_request),
                row.errors.to_string(),
            ]);
        }
        table
    }

    fn crowd_table(&self) -> Table {
        let mut table = table(&[
            "way",
            "requests",
            "under way",
            "resident",
            "page tables",
            "kernel stacks",
            "kernel slabs",
            "of others",
            "per request",
            "threads",
            "errors",
        ]);
        for row in &self.crowd {
            table.add_row([
                row.way.name().into(),
                row.requests.to_string(),
                row.under_way.to_string(),
                bytes(row.resident_bytes as f64),
                bytes(row.page_table_bytes as f64),
                bytes(row.kernel_stack_bytes as f64),
                bytes(row.kernel_slab_bytes as f64),
                bytes(row.others_slab_bytes as f64),
                bytes(row.bytes_per_request),
                row.threads.to_string(),
                row.errors.to_string(),
            ]);
        }
        table
    }

    fn mixed_table(&self) -> Table {
        let mut table = table(&[
            "who shares out the CPU",
            "idle p50 ms",
            "p99 ms",
            "max ms",
            "with images p50 ms",
            "p99 ms",
            "max ms",
            "p99 times",
            "images/s",
            "errors",
        ]);
        for row in &self.mixed {
            let times = |phase: &mixed::Phase| {
                let times = [phase.p50_ms, phase.p99_ms, phase.max_ms];
                times.map(|time| of_answers(phase.answered, time))
            };
            let mut cells = vec![row.variant.name().to_owned()];
            cells.extend(times(&row.idle));
            cells.extend(times(&row.loaded));
            cells.push(row.p99_times.map_or_else(|| "none".into(), figure));
            cells.push(figure(row.images_per_second));
            cells.push((row.idle.errors + row.loaded.errors).to_string());
            table.add_row(cells);
        }
        table
    }

    fn workers_table(&self) -> Table {
        let mut table = table(&[
            "requests",
            "workers",
            "under way",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU %",
            "errors",
        ]);
        for row in &self.workers {
            table.add_row([
                row.kind.name().into(),
                row.workers.to_string(),
                row.in_flight.to_string(),
                figure(row.requests_per_second),
                figure(row.p50_ms),
                figure(row.p99_ms),
                figure(row.cpu_percent),
                row.errors.to_string(),
            ]);
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.origin(), self.tables(""))?;
        self.notes().iter().try_for_each(|note| writeln!(f, "- {note}"))?;
        writeln!(f)?;
        self.claims.iter().try_for_each(|claim| writeln!(f, "{claim}"))
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

/// A time that requests took, if any were answered.
fn of_answers(answered: u64, time: f64) -> String {
    if answered == 0 { "none".into() } else { figure(time) }
}

/// Three digits or more.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(crate) fn bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        _ if bytes >= 100.0 * KIB * KIB => format!("{:.0} MiB", bytes / KIB / KIB),
        _ if bytes >= KIB * KIB => format!("{:.1} MiB", bytes / KIB / KIB),
        _ => format!("{:.1} KiB", bytes / KIB),
    }
}
