//! A `top` for green threads.
//!
//! It attaches to a process that was started with `UTHREAD_SOCKET=path` in its environment, or whose program asked for
//! a socket (`RuntimeBuilder::socket`), and shows what its workers, groups and threads do. It only looks.
//!
//! **Problem.** A terminal must be left as it was found, however the program ends; and keys must be heeded while an
//! answer takes its time, or never comes.
//!
//! **Choice.** One thread draws and decides. All that it learns comes through one channel: keys from a thread that
//! reads them, answers from another that asks for them, signals from a third that waits for them. So it is never
//! interrupted, and waits for nothing else.
//!
//! - `client`: the connection. - `app`: what is shown, and what keys do. - `screen`: drawing. - `columns`: of the list of
//!   threads. - `format`: numbers. - `once`: without a terminal. -
//!   `timing`: what looking costs. - `terminal`: keys, signals, and the end.

mod app;
mod client;
mod columns;
mod format;
mod once;
mod screen;
mod terminal;
mod timing;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use uthread::inspect::protocol::{Column, SnapshotRequest};

use client::Client;

/// Shows what the green threads of a running process do.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The socket that the process was told to open
    #[arg(env = "UTHREAD_SOCKET")]
    socket: PathBuf,

    /// Time between two looks
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    delay: Duration,

    /// What threads are sorted by at first, as `share`, `run_time`, `run_delay`, `turns`, `name`, `id`
    #[arg(long, value_name = "COLUMN", default_value = "share", value_parser = column)]
    sort: Column,

    /// The smallest first
    #[arg(long)]
    ascending: bool,

    /// Only threads with this in their name, group, state or file
    #[arg(long, default_value = "")]
    search: String,

    /// Look once, and print it
    #[arg(long)]
    once: bool,

    /// Print it as JSON
    #[arg(long, requires = "once")]
    json: bool,

    /// How many threads are printed
    #[arg(long, default_value_t = 20, requires = "once")]
    limit: usize,

    /// Look so many times, and print how long that took
    #[arg(long, value_name = "LOOKS", conflicts_with = "once")]
    timing: Option<NonZeroUsize>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be from 0.1 to 3600".to_owned())
    }
}

fn column(text: &str) -> Result<Column, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

impl Args {
    fn request(&self) -> SnapshotRequest {
        SnapshotRequest {
            sort: self.sort,
            descending: !self.ascending,
            search: self.search.clone(),
            limit: self.limit,
            offset: 0,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = Client::connect(&args.socket).and_then(|client| {
        if let Some(looks) = args.timing {
            timing::print(client, &args.request(), looks.get(), args.delay)
                .map(|()| ExitCode::SUCCESS)
        } else if args.once {
            once::print(client, &args.request(), args.json).map(|()| ExitCode::SUCCESS)
        } else {
            terminal::run(client, args.request(), args.delay)
        }
    });
    ended.unwrap_or_else(|e| {
        eprintln!("uthread-top: {e}");
        ExitCode::FAILURE
    })
}
