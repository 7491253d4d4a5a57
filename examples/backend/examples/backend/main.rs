//! The backend: a small web service on green threads, and the external API that it asks, in a process of its own.
//!
//! ```text
//! $ cargo run --release --example backend
//! $ cargo run --release --example backend -- --latency far --under-way 100
//! $ DATABASE_URL=postgresql://postgres@localhost/postgres cargo run --release --example backend
//! ```
//!
//! It says where it listens and what to try. Ctrl-C, or `SIGTERM`, ends it: requests under way are answered, jobs done, the
//! log written, the API ended, and counters printed. With `UTHREAD_SOCKET=/tmp/backend.sock` in its environment,
//! `uthread-top /tmp/backend.sock` shows its threads and groups.

mod supplier;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use uthread::Runtime;
use uthread_backend::api::Latency;
use uthread_backend::backend::{Backend, Summary};
use uthread_backend::config::Config;
use uthread_httpd::Server;

use crate::supplier::Supplier;

/// A small web service on green threads.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,

    #[command(flatten)]
    config: Config,

    /// OS threads that run the green threads
    #[arg(long, default_value_t = uthread::available_parallelism().map_or(1, NonZero::get))]
    workers: usize,

    /// External API to ask; without it, a process of this program is one
    #[arg(long, value_name = "URL")]
    api: Option<String>,

    /// How long that process takes to answer: local, region, far or MIN-MAX in milliseconds
    #[arg(long, default_value_t = Latency::REGION)]
    latency: Latency,
}

#[derive(Subcommand)]
enum Other {
    /// Be the external API, until the standard input ends
    Api {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:0")]
        addr: SocketAddr,

        /// How long to take: local, region, far or MIN-MAX in milliseconds
        #[arg(long, default_value_t = Latency::REGION)]
        latency: Latency,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may read it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    raise_descriptor_limit()?;
    if let &Some(Other::Api { addr, latency }) = &args.other {
        return supplier::be(addr, latency);
    }
    let termination = block_termination()?;
    let temporary;
    let directory = match &args.config.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            directory.as_path()
        }
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path()
        }
    };
    let supplier = match &args.api {
        Some(_) => None,
        None => Some(Supplier::start(args.latency)?),
    };
    let api = args.api.as_deref().or(supplier.as_ref().map(Supplier::url)).unwrap_or_default();

    let runtime = Runtime::builder().workers(args.workers).build()?;
    let summary = runtime.run(|| serve(&args.config, directory, api, termination))?;
    drop(supplier);
    write!(io::stdout(), "{}{summary}", runtime.stats())
}

/// The backend's life, on a green thread.
fn serve(config: &Config, directory: &Path, api: &str, end: SigSet) -> io::Result<Summary> {
    let backend = Backend::start(config, directory, api)?;
    tracing::subscriber::set_global_default(backend.subscriber()).map_err(io::Error::other)?;
    stop_on(end, backend.server());
    tell_what_to_try(backend.local_addr()?, directory, api)?;
    Ok(backend.run())
}

fn tell_what_to_try(address: SocketAddr, directory: &Path, api: &str) -> io::Result<()> {
    let directory = directory.display();
    let mut out = io::stdout();
    writeln!(
        out,
        "listening on {address}
files are in {directory}, the external API is at {api}; try

  curl http://{address}/items/7
  curl http://{address}/orders -d '{{\"item\":7,\"quantity\":2,\"customer\":\"Ada\"}}'
  curl http://{address}/register -d '{{\"name\":\"ada\",\"password\":\"correct horse\"}}'
  curl http://{address}/thumbnail?width=64 --data-binary @picture.png -o small.jpg
  curl http://{address}/jobs -d '{{\"kind\":\"report\"}}'
  curl http://{address}/telemetry?samples=3
  curl http://{address}/metrics

and end it with Ctrl-C"
    )?;
    out.flush()
}

/// Lets the process have as many descriptors as it is allowed: every connection takes one, and the soft limit is usually
/// set for programs that use `select`.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Blocks the signals that ask for an end, so that they wait for whoever asks for them. Threads inherit the mask: to be
/// called while there is only one.
fn block_termination() -> nix::Result<SigSet> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Stops the server at the first of these signals.
fn stop_on(signals: SigSet, server: Arc<Server>) {
    std::thread::spawn(move || {
        signals.wait().expect("sigwait takes any set of valid signals");
        server.stop();
    });
}
