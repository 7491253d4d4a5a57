//! Whether the runtime's figures are true: each beside that of a witness who does not know it.
//!
//! A server with one worker on the first core is loaded from the second, by `wrk` if that is installed, with many
//! connections and with few, which lets the worker sleep between requests.
//!
//! | figure | witness |
//! |---|---|
//! | ops completed, by kind | requests that the client says were answered |
//! | the worker's busy time | the kernel's clock of its OS thread |
//! | switches | events in the flight recorder |
//! | memory of stacks | `/proc/self/smaps` |
//!
//! Busy time is told by the wall's clock: the time when a worker waits for its core is in it, unless it had been
//! asleep. So server and `wrk` take the highest priority if they may, and busy times are compared over those
//! stretches only in which it hardly waited, by the kernel's schedstat; how much it waited in all is told.

mod kernel;
mod server;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;

pub(crate) use server::serve_here;

use crate::Part;
use crate::child::Child;
use crate::common::{Goal, table};
use crate::load::{Client, pin_to_second, take_priority};
use crate::variants::Build;
use server::{Order, Reading, Stacks, Switches};

/// By how much a figure may be off.
const MOST: f64 = 0.03;

/// Connections of the two loads.
const MANY: usize = 64;
const FEW: usize = 4;

/// Threads whose stacks are looked at.
const THREADS: usize = 10_000;

/// How often busy times are read.
const STEP: Duration = Duration::from_millis(50);

/// The part of a stretch that the worker may have waited for its core. To be woken takes half a microsecond of that,
/// 60,000 times a second.
const HARDLY: f64 = 0.05;

/// A figure and what its witness says.
struct Pair {
    name: String,
    told: f64,
    witness: f64,
    unit: &'static str,
    remark: String,
}

impl Pair {
    fn deviation(&self) -> f64 {
        self.told / self.witness - 1.0
    }
}

impl Child {
    fn ask<T: DeserializeOwned>(&mut self, order: Order) -> io::Result<T> {
        self.order(&serde_json::to_string(&order)?)?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }
}

/// Makes requests with `wrk`; how many were answered. Nothing if it is not installed.
fn wrk(addr: SocketAddr, connections: usize, seconds: u64) -> io::Result<Option<u64>> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    // SAFETY: it may be called there.
    unsafe {
        wrk.pre_exec(|| {
            take_priority();
            Ok(())
        })
    };
    let output = match wrk.arg(format!("http://{addr}/")).stderr(Stdio::inherit()).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let answered = text.lines().find_map(|line| line.split_once(" requests in "));
    let answered = answered.and_then(|(number, _)| number.trim().parse().ok());
    let failed = || io::Error::other(format!("wrk says no number of requests: {text}"));
    answered.map(Some).ok_or_else(failed)
}

/// What was seen of a server under load.
struct Seen {
    client: &'static str,
    answered: u64,
    /// All the time.
    all: Reading,
    /// The sum of the stretches in which the worker hardly waited for its core.
    calm: Reading,
    switches: Switches,
}

fn sum(one: Reading, other: Reading, with: impl Fn(u64, u64) -> u64) -> Reading {
    Reading {
        received: with(one.received, other.received),
        sent: with(one.sent, other.sent),
        sleeps: with(one.sleeps, other.sleeps),
        busy: with(one.busy, other.busy),
        cpu: with(one.cpu, other.cpu),
        waited: with(one.waited, other.waited),
        threads: with(one.threads, other.threads),
        at: with(one.at, other.at),
    }
}

fn since(later: Reading, earlier: Reading) -> Reading {
    sum(later, earlier, |later, earlier| later.saturating_sub(earlier))
}

/// Loads a server and asks it meanwhile.
fn load(child: &mut Child, addr: SocketAddr, connections: usize, seconds: u64) -> io::Result<Seen> {
    let (tell, told) = channel();
    let client = thread::spawn(move || {
        let answered = match wrk(addr, connections, seconds) {
            Ok(None) => Client::connect(addr, connections).and_then(|mut client| {
                let (answered, _) = client.load(Duration::from_secs(seconds))?;
                // Each connection has made a request before.
                Ok(("bench", answered + connections as u64))
            }),
            other => other.map(|answered| ("wrk", answered.unwrap_or(0))),
        };
        let _ = tell.send(answered);
    });
    let first: Reading = child.ask(Order::Read)?;
    let (mut last, mut calm, mut switches) = (first, Reading::default(), None);
    let answered = loop {
        match told.recv_timeout(STEP) {
            Ok(answered) => break answered,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("it is told before"),
        }
        let now: Reading = child.ask(Order::Read)?;
        let step = since(now, last);
        // At the beginning and at the end there is no load.
        if step.received > 0 && (step.waited as f64) < step.at as f64 * HARDLY {
            calm = sum(calm, step, |a, b| a + b);
        }
        last = now;
        if switches.is_none() && now.at - first.at > 500_000_000 {
            switches = Some(child.ask(Order::Count)?);
            last = child.ask(Order::Read)?;
        }
    };
    client.join().expect("it does not panic");
    let (client, answered) = answered?;
    let all = since(child.ask(Order::Read)?, first);
    let switches = switches.ok_or_else(|| io::Error::other("the load was too short"))?;
    Ok(Seen { client, answered, all, calm, switches })
}

pub(crate) fn measure(program: &std::path::Path, quick: bool) -> io::Result<Vec<Goal>> {
    let seconds = if quick { 2 } else { 6 };
    let mut child = Child::start(program, Part::Witness, Build::own())?;
    let addr = child.answer()?.parse().map_err(io::Error::other)?;
    pin_to_second();
    let mut pairs = Vec::new();
    for connections in [MANY, FEW] {
        let seen = load(&mut child, addr, connections, seconds)?;
        let mut add = |name: &str, told: f64, witness: f64, unit, remark: String| {
            let name = format!("{name}, {} with {connections} connections", seen.client);
            pairs.push(Pair { name, told, witness, unit, remark });
        };
        let answered = seen.answered as f64;
        let remark = "the end of each connection is received, too".to_owned();
        add("receptions / requests", seen.all.received as f64, answered, "", remark);
        add("sends / requests", seen.all.sent as f64, answered, "", String::new());
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let (calm, all) = (seen.calm, seen.all);
        let remark = format!(
            "in {:.0} of {:.0} ms; in all {:.0} of {:.0} busy, waited for the core {:.0}; threads ran for {:.0}, {} sleeps",
            ms(calm.at),
            ms(all.at),
            ms(all.cpu),
            ms(all.busy),
            ms(all.waited),
            ms(all.threads),
            all.sleeps,
        );
        add("busy time / CPU time of the worker", ms(calm.busy), ms(calm.cpu), "ms", remark);
        let Switches { counted, recorded, overwritten } = seen.switches;
        let remark = if overwritten { "the trace was too short" } else { "" };
        add("switches counted / in the trace", counted as f64, recorded as f64, "", remark.into());
    }
    let Stacks { told, smaps } = child.ask(Order::Spawn(THREADS))?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let name = format!("memory of {THREADS} stacks / in smaps");
    let remark = String::new();
    pairs.push(Pair { name, told: mib(told), witness: mib(smaps), unit: "MiB", remark });
    Ok(report(&pairs))
}

fn report(pairs: &[Pair]) -> Vec<Goal> {
    let mut rows = table(&["figure / witness", "figure", "witness", "unit", "deviation", "remark"]);
    let goal = |pair: &Pair| {
        let deviation = format!("{:+.2} %", pair.deviation() * 100.0);
        let number = |n: f64| if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.2}") };
        rows.add_row([
            pair.name.clone(),
            number(pair.told),
            number(pair.witness),
            pair.unit.to_owned(),
            deviation.clone(),
            pair.remark.clone(),
        ]);
        let text = match pair.witness {
            0.0 => format!("{}: others had the core all the time", pair.name),
            _ => format!("{}: within {} %: {deviation}", pair.name, MOST * 100.0),
        };
        Goal { text, met: pair.deviation().abs() <= MOST }
    };
    let goals = pairs.iter().map(goal).collect();
    println!("\n{rows}");
    goals
}
