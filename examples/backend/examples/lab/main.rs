//! The lab: one service, run in four ways under the same load, and what becomes of it.
//!
//! ```text
//! $ cargo run --release --example lab
//! ```
//!
//! **Question.** A request waits 250 ms for others and computes for 10 ms. What does it take to keep a core busy with
//! such requests, what else does that cost, and what becomes of them beside work that only computes?
//!
//! **Answer.** The service of this package, an order of some goods with SQLite, an external service and JSON, is run
//! *one request at a time*, with *a thread of the operating system* for each request, with *a green thread* for each, and
//! on *an event loop* (tokio). All of them take the very same steps ([`uthread_backend::order`]); what differs is who
//! waits. Each is measured in a process of its own.
//!
//! | module | concern |
//! |---|---|
//! | `plan` | what is measured, in which order, for how long |
//! | `waiting` | the story: requests that wait and compute |
//! | `crowd` | ten thousand requests that wait at the same time |
//! | `mixed` | requests beside images |
//! | `workers` | when more workers help |
//! | `way`, `service`, `event_loop`, `external` | the service, and what it asks |
//! | `rig`, `child` | processes, where they run, and their ends |
//! | `load`, `question` | the users |
//! | `usage`, `machine` | what the kernel tells |
//! | `report`, `figures`, `plot`, `claims` | what is told |

mod child;
mod claims;
mod crowd;
mod event_loop;
mod external;
mod figures;
mod load;
mod machine;
mod mixed;
mod plan;
mod plot;
mod question;
mod report;
mod rig;
mod service;
mod usage;
mod waiting;
mod way;
mod workers;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use crate::machine::Machine;
use crate::plan::{Part, Plan, Step};
use crate::report::Report;
use crate::rig::{NICENESS, Rig};
use crate::way::Role;

/// Runs one service in four ways under the same load, and tells what becomes of it.
#[derive(Parser)]
struct Args {
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,

    /// About how long it may take (170 unless told otherwise, or 15 if quick)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Measure less, in less time: to see that it works
    #[arg(long)]
    quick: bool,

    /// Where figures, plots and a page go (target/lab unless told otherwise)
    #[arg(long)]
    folder: Option<PathBuf>,

    /// Fail if a claim is missed
    #[arg(long)]
    check: bool,

    /// Be the service, or what it asks: the program calls itself with this
    #[arg(long, hide = true, value_parser = |json: &str| serde_json::from_str::<Role>(json))]
    role: Option<Role>,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    match &args.role {
        Some(role) => perform(role).map(|()| ExitCode::SUCCESS),
        None => measure(&args),
    }
}

/// The life of a process that the lab has started.
fn perform(role: &Role) -> io::Result<()> {
    child::end_with_parent()?;
    machine::raise_descriptor_limit()?;
    let (Role::Service(way::Setup { cores, .. }) | Role::Api { cores, .. }) = role;
    machine::pin_to(cores)?;
    match role {
        Role::Service(setup) => {
            rustix::process::nice(NICENESS)?;
            service::run(setup)
        }
        Role::Api { latency_ms, .. } => external::run(latency_ms),
    }
}

fn measure(args: &Args) -> io::Result<ExitCode> {
    let machine = Machine::describe();
    machine::raise_descriptor_limit()?;
    let stop = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect::<SigSet>();
    // Threads inherit the mask, so it comes before the first of them.
    stop.thread_block()?;
    let rig = Rig::new()?;
    leave_nothing_behind(stop, rig.directory());

    let time = Duration::from_secs(args.seconds.unwrap_or(if args.quick { 15 } else { 170 }));
    let is_wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let plan = Plan::new(is_wanted, time, args.quick);
    let mut report = Report::new(machine, rig.work().rounds);
    let began = Instant::now();
    let mut progress = Progress::new();
    plan.carry_out(&rig, &mut report, |step| progress.tell(step));
    progress.end(began.elapsed());

    report.conclude();
    let folder = args.folder.clone().unwrap_or_else(default_folder);
    report.write(&folder)?;
    println!("{report}");
    println!("figures, plots and a page: {}", folder.display());
    let failed = !report.failures.is_empty()
        || args.check && report.claims.iter().any(|claim| !claim.is_met);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Beside the rest of what cargo makes: examples are in `target/release/examples`.
fn default_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).unwrap_or(Path::new("target")).join("lab")
}

/// Ends the process at the first of these signals. The kernel ends its children then.
fn leave_nothing_behind(signals: SigSet, directory: PathBuf) {
    std::thread::spawn(move || {
        signals.wait().expect("sigwait takes any set of valid signals");
        // A service that opens its database just then may put a file into a directory that was empty.
        let _ = (0..10).find(|_| fs::remove_dir_all(&directory).is_ok());
        process::exit(130);
    });
}

/// A line on stderr that says how far it is; on a terminal it is replaced by the next.
struct Progress {
    on_terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { on_terminal: io::stderr().is_terminal() }
    }

    /// Nobody has to read it.
    fn tell(&mut self, step: &Step) {
        let _ = if self.on_terminal {
            write!(io::stderr(), "\r\x1b[K{step}")
        } else {
            writeln!(io::stderr(), "{step}")
        };
    }

    fn end(&mut self, took: Duration) {
        let start = if self.on_terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr(), "{start}measured in {} s\n", took.as_secs());
    }
}
