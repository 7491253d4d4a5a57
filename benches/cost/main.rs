//! What a green thread costs, beside a thread of `std` and beside the physical floor.
//!
//! `cargo bench --bench cost` prints the tables of a run; `-- --help` tells the options. Both kinds of
//! threads run the same workloads (`workloads`), in turns (`measure`), times in this process (`time`)
//! and memory in processes of their own (`memory`). Beside each figure stands what the machine charges
//! for the part that no runtime can avoid (`floors`), so that a reader sees how much is ours. What
//! grows with the number of threads is measured from ten to a million of them (`sweep`), and written
//! with all the rest into a folder, as plots, JSON and a page that shows them (`page`). Names of rows
//! choose what is measured; `-- sweep` makes the plots without the other rows.

mod case;
mod crowd;
mod floors;
mod goals;
mod limits;
mod machine;
mod measure;
mod memory;
mod pace;
mod page;
mod plot;
mod report;
mod sweep;
mod threads;
mod time;
mod workloads;
mod yard;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::case::Task;
use crate::machine::Machine;
use crate::measure::Plan;
use crate::report::Report;

/// Measures what green threads cost, beside std's threads and beside the physical floor.
#[derive(Parser)]
struct Args {
    /// Measure only rows whose name contains one of these; "sweep" is all that goes by number of threads
    filters: Vec<String>,
    /// Rounds; the figures are medians over them (7 unless told otherwise, or 3 if quick)
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write report, plots and figures of a sweep into this folder (target/report unless told otherwise)
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Measure in less time: shorter stretches, fewer threads
    #[arg(long)]
    quick: bool,
    /// Print which goals are met, and fail if one is missed
    #[arg(long)]
    check: bool,
    /// Measure one thing and print it as JSON: the benchmark calls itself with this
    #[arg(long, hide = true, value_parser = |json: &str| serde_json::from_str::<Task>(json))]
    task: Option<Task>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn plan(&self) -> Plan {
        let (rounds, stretch) = match self.quick {
            true => (3, Duration::from_millis(20)),
            false => (7, Duration::from_millis(150)),
        };
        Plan { rounds: self.rounds.map_or(rounds, NonZeroUsize::get), stretch }
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    if let Some(task) = args.task {
        return task.perform().map(|()| ExitCode::SUCCESS);
    }
    let report = measure(&args)?;
    print!("{report}");
    if let Some(path) = &args.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    if !report.sweep.is_empty() {
        let folder = args.report.unwrap_or_else(page::folder);
        page::write(&report, &folder)?;
        println!("report  {}", folder.join(page::NAME).display());
    }
    if args.check {
        println!();
        report.goals.iter().for_each(|goal| println!("{goal}"));
    }
    let missed = args.check && report.goals.iter().any(|goal| goal.missed());
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(args: &Args) -> io::Result<Report> {
    let plan = args.plan();
    let wanted = |name: &str| args.wants(name);
    let mut report = Report::new(Machine::describe()?, plan);
    report.floors = time::floors(&plan, wanted).map(|rows| report.note_failures(rows))?;
    report.time = report.note_failures(time::comparisons(&plan, wanted));
    if wanted(sweep::NAME) {
        report.sweep = report.note_failures(sweep::in_turns(&plan, args.quick));
    }
    let cases = memory::cases(args.quick).into_iter().filter(|case| wanted(&memory::name(case)));
    let cases = memory::united(cases.collect(), sweep::memory_cases(&report.sweep));
    report.memory = report.note_failures(memory::in_turns(cases, &plan));
    report.goals = goals::goals(&report);
    Ok(report)
}
