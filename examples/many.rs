//! Very many threads that do different things, to be looked at with `uthread-top`.
//!
//! ```text
//! $ UTHREAD_SOCKET=/tmp/many.sock cargo run --release --features inspect --example many
//! 100000 threads; end it with Ctrl-C
//! $ cargo run --release --features top -- /tmp/many.sock
//! ```
//!
//! Most are parked for good. Some compute, in two groups of different weight; some wake up a hundred times in a
//! second; pairs of them hand a message to and fro; and some wait for the network.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use uthread::net::{TcpListener, TcpStream};
use uthread::{Builder, Group};

/// Bytes of a stack of a thread that does little.
const SMALL: usize = 64 << 10;

/// Threads that do different things.
#[derive(Parser)]
struct Args {
    /// Threads that are parked
    #[arg(long, default_value_t = 100_000)]
    parked: usize,

    /// Threads that compute, in each of two groups
    #[arg(long, default_value_t = 2)]
    busy: usize,

    /// Threads that wake up a hundred times in a second
    #[arg(long, default_value_t = 100)]
    tickers: usize,

    /// Pairs of threads that hand a message to and fro, a thousand times in a second
    #[arg(long, default_value_t = 4)]
    pairs: usize,

    /// Connections with a thread at each end
    #[arg(long, default_value_t = 16)]
    connections: usize,

    /// End after so many seconds, not with Ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
}

fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name).stack_size(SMALL).spawn(f).map(drop)
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let http = Group::builder().name("http").weight(400).build()?;
    let jobs = Group::builder().name("jobs").weight(100).build()?;

    for i in 0..args.parked {
        // Tokens may come from anywhere.
        let park = || loop {
            uthread::park();
        };
        spawn(format!("parked-{i}"), park)?;
    }
    for (group, i) in [&http, &jobs].into_iter().flat_map(|g| (0..args.busy).map(move |i| (g, i))) {
        let name = format!("{}-{i}", group.name());
        Builder::new().name(name).group(group).spawn(compute)?;
    }
    for i in 0..args.tickers {
        let tick = || loop {
            uthread::sleep(Duration::from_millis(10));
        };
        spawn(format!("ticker-{i}"), tick)?;
    }
    for i in 0..args.pairs {
        hand_to_and_fro(i)?;
    }
    connect(args.connections)?;

    let mut stdout = io::stdout();
    writeln!(stdout, "{} threads; end it with Ctrl-C", uthread::stats().threads_live)?;
    match args.seconds {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        None => loop {
            std::thread::park();
        },
    }
    Ok(())
}

fn compute() {
    for i in 0_u64.. {
        black_box(i.wrapping_mul(i));
    }
}

/// A pair of threads with one message.
fn hand_to_and_fro(number: usize) -> io::Result<()> {
    let (to, there) = mpsc::channel();
    let (fro, here) = mpsc::channel();
    let ping = move || {
        while to.send(()).is_ok() && here.recv().is_ok() {
            uthread::sleep(Duration::from_millis(1));
        }
    };
    let pong = move || while there.recv().is_ok() && fro.send(()).is_ok() {};
    spawn(format!("ping-{number}"), ping)?;
    spawn(format!("pong-{number}"), pong)
}

/// Connections of the process with itself, on which nothing comes.
fn connect(connections: usize) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    for i in 0..connections {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        for (name, stream) in [("client", client), ("server", server)] {
            let wait = move || {
                let mut stream = stream;
                let mut byte = [0];
                // At the end there is nothing left to be told.
                let _ = stream.read(&mut byte);
            };
            spawn(format!("{name}-{i}"), wait)?;
        }
    }
    Ok(())
}
