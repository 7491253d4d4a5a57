//! What forced preemption costs, and what it buys.
//!
//! `cargo bench --bench preempt` prints the tables of a run; `-- --help` tells the options. Everything runs
//! pinned: with one worker all of the process's threads share the first core, the monitor included, with two
//! the first two. OS threads run the same work on the same cores.
//!
//! On a virtual machine the interrupt of a timer alone takes 10–20 µs of the guest's time. It stands beside
//! the figures as their floor.

#[path = "../common/mod.rs"]
mod common;
mod cost;
mod lateness;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

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

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let stretch = Duration::from_millis(if args.quick { 100 } else { 500 });
    let wakes = if args.quick { 200 } else { 2000 };
    let mut goals = cost::measure(stretch)?;
    goals.extend(lateness::measure(wakes)?);
    Ok(common::judge(&goals, args.check))
}
