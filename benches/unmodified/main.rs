//! What `std`'s own locks, channels and calls cost on green threads.
//!
//! `cargo bench --bench unmodified` prints the tables of a run; `-- --help` tells the options. The round trips of two threads
//! that wait for each other are measured on green threads of one worker and on OS threads, on one core and on
//! all, beside a yield between two green threads; the calls on both kinds of thread, beside the C library's own function.
//! Rounds are interleaved, figures are medians. What of the round trips is whose, [`locked`] counts.

mod calls;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use more of it")]
mod common;
#[cfg(target_arch = "x86_64")]
mod locked;
mod trips;

use std::io;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use common::{Goal, judge};

/// Measures std's locks and channels, and blocking calls, on green threads and OS threads.
#[derive(Parser)]
struct Args {
    /// Measure only these parts
    parts: Vec<Part>,
    /// Measure for less time
    #[arg(long)]
    quick: bool,
    /// Fail if a goal is missed
    #[arg(long)]
    check: bool,
    /// Make the round trips of this number, for a parent that counts: the benchmark calls itself with this
    #[arg(long, hide = true)]
    child: Option<usize>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Trips,
    Locked,
    Calls,
}

impl Part {
    fn measure(self, rounds: usize, cores: usize) -> io::Result<Vec<Goal>> {
        match self {
            Part::Trips => trips::measure(rounds, cores),
            #[cfg(target_arch = "x86_64")]
            Part::Locked => locked::measure(rounds).map(|()| Vec::new()),
            #[cfg(not(target_arch = "x86_64"))]
            Part::Locked => Ok(Vec::new()),
            Part::Calls => calls::measure(rounds),
        }
    }
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    #[cfg(target_arch = "x86_64")]
    if let Some(case) = args.child {
        return locked::run_here(case).map(|()| ExitCode::SUCCESS);
    }
    if !uthread::interposed() {
        println!("The C library's functions are its own here: green threads block.");
    }
    let rounds = if args.quick { 5 } else { 21 };
    let cores = std::thread::available_parallelism()?.get();
    let mut goals = Vec::new();
    for part in Part::value_variants() {
        if args.parts.is_empty() || args.parts.contains(part) {
            goals.extend(part.measure(rounds, cores)?);
        }
    }
    Ok(judge(&goals, args.check))
}
