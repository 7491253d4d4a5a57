//! What it costs that the runtime counts, times and records everything.
//!
//! `cargo bench --bench instruments` measures a build as it is against two others. One is without the flight recorder
//! (`--cfg uthread_untraced`); in the other, besides, accounts of time, counters and histograms do nothing and a switch
//! does not read the clock (`--cfg uthread_bare`). (Such builds are for this comparison only: in the last, preemption
//! and shares go by times that are up to a round old.) It builds them itself, into `target/counting` and `target/bare`.
//! This program measures in children of all three, in turns, on the same core: a switch ([`yields`]), and the server of
//! the example `http` ([`http`]).
//!
//! `cargo bench --bench instruments -- witness` finds out whether the figures are true ([`witness`]).

mod child;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use more of it")]
mod common;
mod http;
mod load;
mod variants;
mod witness;
mod yields;

use std::io;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use common::judge;

/// Measures what counters, time accounts, histograms and the flight recorder cost, and whether they tell the truth.
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
    /// Measure, or be measured, as the standard input says: the benchmark calls itself with this
    #[arg(long, hide = true)]
    child: Option<Part>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Yield,
    Http,
    Witness,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    match args.child {
        Some(Part::Yield) => return yields::measure_here().map(|()| ExitCode::SUCCESS),
        Some(Part::Http) => return http::serve_here().map(|()| ExitCode::SUCCESS),
        Some(Part::Witness) => return witness::serve_here().map(|()| ExitCode::SUCCESS),
        None => {}
    }
    let wants = |part| args.parts.is_empty() || args.parts.contains(&part);
    let mut goals = Vec::new();
    if wants(Part::Yield) || wants(Part::Http) {
        let variants = variants::build()?;
        if wants(Part::Yield) {
            goals.extend(yields::measure(&variants, args.quick)?);
        }
        if wants(Part::Http) {
            goals.push(http::measure(&variants, args.quick)?);
        }
    }
    if wants(Part::Witness) {
        goals.extend(witness::measure(&std::env::current_exe()?, args.quick)?);
    }
    Ok(judge(&goals, args.check))
}
