//! What forced preemption costs, and what it buys.
//!
//! `cargo bench --bench preempt` prints the tables of a run; `-- --help` tells the options. Everything runs
//! pinned: with one worker all of the process's threads share the first core, the monitor included, with two
//! the first two. OS threads run the same work on the same cores.
//!
//! On a virtual machine the interrupt of a timer alone takes 10–20 µs of the guest's time. It stands beside
//! the figures as their floor.

mod cost;
mod lateness;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Measures what interrupting threads costs and buys.
#[derive(Parser)]
struct Args {
    /// Measure for less time
    #[arg(long)]
    quick: bool,
    /// Print which goals are met, and fail if one is missed
    #[arg(long)]
    check: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A goal: what is asked for, what was measured, whether it is met.
pub(crate) struct Goal {
    pub(crate) text: String,
    pub(crate) met: bool,
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

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let stretch = Duration::from_millis(if args.quick { 100 } else { 500 });
    let wakes = if args.quick { 200 } else { 2000 };
    let mut goals = cost::measure(stretch)?;
    goals.extend(lateness::measure(wakes)?);
    println!();
    for goal in &goals {
        println!("{}: {}", if goal.met { "met" } else { "MISSED" }, goal.text);
    }
    let missed = args.check && goals.iter().any(|g| !g.met);
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
