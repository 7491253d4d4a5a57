//! The server of the example `http` over loopback.
//!
//! The server has one worker on the first core, the load comes from one OS thread on the second: so many connections,
//! each with one request at a time. What the server can do bounds the throughput only if the load is cheaper to make
//! than to serve; so the server's own time on CPU per request is told as well.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;
use uthread::Runtime;

use crate::Part;
use crate::child::Child;
use crate::common::{Goal, median, pin_to, table};
use crate::server::{Server, TimeLimits};
use crate::variants::Variants;

const CONNECTIONS: usize = 64;

/// The part of the throughput that instruments may take.
const MOST: f64 = 0.03;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

/// The child's life: a server, until the standard input ends.
pub(crate) fn serve_here() -> io::Result<()> {
    pin_to(1)?;
    let runtime = Runtime::builder().workers(1).build()?;
    let limits = TimeLimits { request: Duration::from_secs(10), idle: Duration::from_secs(600) };
    let server = Arc::new(Server::bind(([127, 0, 0, 1], 0).into(), limits)?);
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
    connections: Vec<TcpStream>,
    ready: Epoll,
    /// Bytes of an answer.
    answer: usize,
}

impl Side {
    fn start(program: &std::path::Path, bare: bool) -> io::Result<Side> {
        let mut child = Child::start(program, Part::Http, bare)?;
        let addr: SocketAddr = child.answer()?.parse().map_err(io::Error::other)?;
        let ready = Epoll::new(EpollCreateFlags::empty())?;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        let mut answer = 0;
        for i in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            // The answer is short and comes in one piece.
            stream.write_all(REQUEST)?;
            answer = stream.read(&mut [0; 4096])?;
            ready.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
            connections.push(stream);
        }
        Ok(Side { child, connections, ready, answer })
    }

    /// Requests per second, and nanoseconds on CPU for each.
    fn load(&mut self, time: Duration) -> io::Result<(f64, f64)> {
        let mut buffer = [0; 4096];
        let mut events = [EpollEvent::empty(); CONNECTIONS];
        let cpu_before = cpu_time(self.child.id())?;
        let start = Instant::now();
        for mut stream in &self.connections {
            stream.write_all(REQUEST)?;
        }
        let (mut answers, mut open) = (0_u64, CONNECTIONS);
        while open > 0 {
            let count = self.ready.wait(&mut events, EpollTimeout::from(10_000_u16))?;
            let goes_on = start.elapsed() < time;
            for event in &events[..count] {
                let mut stream = &self.connections[event.data() as usize];
                let length = stream.read(&mut buffer)?;
                assert_eq!(length, self.answer, "an answer in pieces, or none");
                answers += 1;
                if goes_on { stream.write_all(REQUEST)? } else { open -= 1 }
            }
            assert!(count > 0, "no answer for ten seconds");
        }
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = cpu_time(self.child.id())? - cpu_before;
        Ok((answers as f64 / elapsed, cpu / answers as f64))
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

/// Puts the calling thread on the second core, away from the servers, if there is one.
fn pin_to_second() {
    let mut second = CpuSet::new();
    second.set(1).expect("sets have more than two places");
    if sched_setaffinity(Pid::from_raw(0), &second).is_err() {
        eprintln!("load and server share a core: there is no second one");
    }
}

pub(crate) fn measure(variants: &Variants, quick: bool) -> io::Result<Goal> {
    let (rounds, stretch) = if quick { (9, 300) } else { (21, 1000) };
    let stretch = Duration::from_millis(stretch);
    let mut sides = [Side::start(&variants.full, false)?, Side::start(&variants.bare, true)?];
    pin_to_second();
    let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
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
    let [full, bare] = rates.map(median);
    let [full_cost, bare_cost] = costs.map(median);
    let less = 1.0 - full / bare;
    let mut rows = table(&["http, 64 connections", "with", "without", "difference"]);
    let difference = |with: f64, without: f64| format!("{:+.1} %", (with / without - 1.0) * 100.0);
    rows.add_row([
        "requests per second".to_owned(),
        format!("{full:.0}"),
        format!("{bare:.0}"),
        difference(full, bare),
    ]);
    rows.add_row([
        "server's CPU time per request, ns".to_owned(),
        format!("{full_cost:.0}"),
        format!("{bare_cost:.0}"),
        difference(full_cost, bare_cost),
    ]);
    println!("\n{rows}");
    Ok(Goal {
        text: format!(
            "the server answers at most {} % fewer requests: {:.1} %",
            MOST * 100.0,
            less * 100.0
        ),
        met: less <= MOST,
    })
}
