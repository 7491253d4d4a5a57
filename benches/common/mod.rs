//! What the benchmarks of the scheduler share: goals, pinning, tables, and what the machine does to them.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use comfy_table::Table;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// A goal: what is asked for, what was measured, whether it is met.
pub(crate) struct Goal {
    pub(crate) text: String,
    pub(crate) met: bool,
}

/// Prints the goals; a failure if one is missed and that matters.
pub(crate) fn judge(goals: &[Goal], check: bool) -> ExitCode {
    println!();
    for goal in goals {
        println!("{}: {}", if goal.met { "met" } else { "MISSED" }, goal.text);
    }
    let missed = check && goals.iter().any(|g| !g.met);
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Pins the calling thread, and those that it starts, to the first so many cores.
pub(crate) fn pin_to(cores: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    (0..cores).try_for_each(|core| set.set(core))?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// The value below which that part of the sorted values lies.
pub(crate) fn quantile(sorted: &[u64], part: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(0)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header(header);
    table
}

pub(crate) fn spin(over: &AtomicBool) {
    while !over.load(Relaxed) {
        std::hint::spin_loop();
    }
}

/// Spins for a while, on otherwise idle cores: the gaps are what the machine takes for itself. The largest, in
/// nanoseconds.
pub(crate) fn stolen(time: Duration) -> u64 {
    let (start, mut last, mut largest) = (Instant::now(), Instant::now(), 0);
    while start.elapsed() < time {
        let now = Instant::now();
        largest = largest.max((now - last).as_nanos() as u64);
        last = now;
    }
    largest
}
