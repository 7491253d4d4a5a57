//! Who runs when, and what it costs to decide that.
//!
//! `cargo bench --bench sched` prints the tables of a run; `-- --help` tells the options. First the policy by
//! itself, then groups of threads on one worker and on two, pinned to as many cores. What other processes
//! take of these is noise: beside the figures stands what this one got.

mod caps;
#[path = "../common/mod.rs"]
mod common;
mod decisions;
mod herd;
mod idle;
mod latency;
mod policy;
mod rig;
mod shares;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use common::{Goal, judge, pin_to};

/// Measures what the scheduler's decisions cost, and whether groups of threads get what they are promised.
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
    /// Print the figures of one process with idle groups: the benchmark calls itself with this
    #[arg(long, hide = true)]
    idle: Option<idle::Scene>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Decisions,
    Shares,
    Idle,
    Latency,
    Caps,
    Herd,
}

impl Part {
    fn measure(self, quick: bool) -> io::Result<Vec<Goal>> {
        let seconds =
            |full: f64, less: f64| Duration::from_secs_f64(if quick { less } else { full });
        match self {
            Part::Decisions => {
                pin_to(1)?;
                let (rounds, operations) = if quick { (3, 20_000) } else { (9, 150_000) };
                Ok(decisions::measure(decisions::Plan { rounds, operations }))
            }
            Part::Shares => shares::measure(seconds(5.0, 1.0)),
            Part::Idle => idle::measure(quick),
            Part::Latency => latency::measure(if quick { 150 } else { 1500 }),
            Part::Caps => caps::measure(seconds(2.0, 0.3)),
            Part::Herd => herd::measure(if quick { 1 } else { 5 }),
        }
    }
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    if let Some(scene) = args.idle {
        return idle::measure_here(scene, args.quick).map(|()| ExitCode::SUCCESS);
    }
    let mut goals = Vec::new();
    for part in Part::value_variants() {
        if args.parts.is_empty() || args.parts.contains(part) {
            goals.extend(part.measure(args.quick)?);
        }
    }
    Ok(judge(&goals, args.check))
}
