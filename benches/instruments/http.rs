//! The server of the example `http` over loopback.
//!
//! The server has one worker on the first core, the load comes from one OS thread on the second: so many connections,
//! each with one request at a time. What the server can do bounds the throughput only if the load is cheaper to make
//! than to serve; so the server's own time on CPU per request is told as well.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uthread::Runtime;
use uthread_httpd::{GreenThreads, Limits, Request, Response, Server, Status};

use crate::Part;
use crate::child::Child;
use crate::common::{Goal, median, pin_to, table};
use crate::load::{Client, pin_to_second};
use crate::variants::{BUILDS, Build, Variants};

const CONNECTIONS: usize = 64;

/// The part of the throughput that instruments may take.
const MOST: f64 = 0.03;

/// A server that says hello, as the example does on `/`.
pub(crate) fn bind() -> io::Result<Arc<Server>> {
    let limits = Limits { idle: Duration::from_secs(600), ..Limits::default() };
    let hello = |_: &Request<'_>| Response::text(Status::OK, "Hello, World!");
    let addr = ([127, 0, 0, 1], 0).into();
    Ok(Arc::new(Server::bind(addr, limits, hello, GreenThreads::new())?))
}

/// The child's life: a server, until the standard input ends.
pub(crate) fn serve_here() -> io::Result<()> {
    pin_to(1)?;
    let runtime = Runtime::builder().workers(1).build()?;
    let server = bind()?;
    Child::introduce()?;
    writeln!(io::stdout(), "{}", server.local_addr()?)?;
    let stopper = server.clone();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stopper.stop();
    });
    runtime.run(|| server.run());
    Ok(())
}

/// One server and the connections to it.
struct Side {
    child: Child,
    client: Client,
}

impl Side {
    fn start(program: &Path, build: Build) -> io::Result<Side> {
        let mut child = Child::start(program, Part::Http, build)?;
        let addr = child.answer()?.parse().map_err(io::Error::other)?;
        Ok(Side { child, client: Client::connect(addr, CONNECTIONS)? })
    }

    /// Requests per second, and nanoseconds on CPU for each.
    fn load(&mut self, time: Duration) -> io::Result<(f64, f64)> {
        let before = cpu_time(self.child.id())?;
        let (answers, elapsed) = self.client.load(time)?;
        let cpu = cpu_time(self.child.id())? - before;
        Ok((answers as f64 / elapsed.as_secs_f64(), cpu / answers as f64))
    }
}

/// Nanoseconds that a process has spent on CPU.
fn cpu_time(process: libc::pid_t) -> io::Result<f64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointers are valid.
    let failed = unsafe {
        libc::clock_getcpuclockid(process, &mut clock) != 0
            || libc::clock_gettime(clock, &mut time) != 0
    };
    if failed {
        return Err(io::Error::other("a server has ended early"));
    }
    Ok(time.tv_sec as f64 * 1e9 + time.tv_nsec as f64)
}

pub(crate) fn measure(variants: &Variants, quick: bool) -> io::Result<Goal> {
    let (rounds, stretch) = if quick { (9, 300) } else { (21, 1000) };
    let stretch = Duration::from_millis(stretch);
    let sides = BUILDS.iter().zip(&variants.0).map(|(build, program)| Side::start(program, *build));
    let mut sides = sides.collect::<io::Result<Vec<_>>>()?;
    pin_to_second();
    let mut rates: [_; 3] = std::array::from_fn(|_| Vec::new());
    let mut costs: [_; 3] = std::array::from_fn(|_| Vec::new());
    // The first round warms up.
    for round in 0..=rounds {
        for (i, side) in sides.iter_mut().enumerate() {
            let (rate, cost) = side.load(stretch)?;
            if round > 0 {
                rates[i].push(rate);
                costs[i].push(cost);
            }
        }
    }
    let mut rows =
        table(&["http, 64 connections", "bare", "and counters", "and recorder", "difference"]);
    let mut row = |name: &str, [bare, counting, full]: [f64; 3]| {
        let figures = [bare, counting, full].map(|figure| format!("{figure:.0}"));
        let difference = format!("{:+.1} %", (full / bare - 1.0) * 100.0);
        rows.add_row([name.to_owned()].into_iter().chain(figures).chain([difference]));
    };
    let rates = rates.map(median);
    row("requests per second", rates);
    row("server's CPU time per request, ns", costs.map(median));
    println!("\n{rows}");
    let [bare, _, full] = rates;
    let less = 1.0 - full / bare;
    Ok(Goal {
        text: format!(
            "the server answers at most {} % fewer requests: {:.1} %",
            MOST * 100.0,
            less * 100.0
        ),
        met: less <= MOST,
    })
}
