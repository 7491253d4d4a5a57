//! The process that is looked at: a server that reads its own figures and the kernel's when it is told to.

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uthread::trace::{Event, Recorder};
use uthread::{Builder, Runtime};

use super::kernel;
use crate::child::Child;
use crate::common::pin_to;
use crate::http;
use crate::load::{pin_to_second, take_priority};

/// What it may be told to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To read figures: answered by [`Reading`].
    Read,
    /// To count switches for a while: answered by [`Switches`].
    Count,
    /// To have so many threads that touch their stacks: answered by [`Stacks`].
    Spawn(usize),
}

/// Figures of the runtime, and of its only worker; nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) sleeps: u64,
    pub(super) busy: u64,
    /// By the kernel's clock.
    pub(super) cpu: u64,
    /// Runnable, but without its core, by the kernel's schedstat.
    pub(super) waited: u64,
    /// Time on the worker, of all threads.
    pub(super) threads: u64,
    /// When.
    pub(super) at: u64,
}

/// Switches in some stretch of time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Switches {
    pub(super) counted: u64,
    pub(super) recorded: u64,
    /// The trace was too short for the stretch.
    pub(super) overwritten: bool,
}

/// Bytes of threads' stacks that have memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stacks {
    pub(super) told: u64,
    pub(super) smaps: u64,
}

/// Events that the worker keeps: more than it has in [`STRETCH`].
const EVENTS: usize = 1 << 20;

/// For how long switches are counted.
const STRETCH: Duration = Duration::from_millis(300);

/// Figures that are compared are read within this time, lest the time in between is a difference.
const TOGETHER: Duration = Duration::from_micros(50);

/// Reads until nothing has come in between, or else that cannot be had.
fn together<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut last = None;
    for _ in 0..1000 {
        let began = Instant::now();
        let value = read()?;
        if began.elapsed() < TOGETHER {
            return Ok(value);
        }
        last = Some(value);
    }
    Ok(last.expect("it was tried"))
}

/// The child's life: a server with one worker on the first core, until the standard input ends.
pub(crate) fn serve_here() -> io::Result<()> {
    pin_to(1)?;
    take_priority();
    let runtime = Arc::new(Runtime::builder().workers(1).trace_events(EVENTS).build()?);
    let server = http::bind()?;
    let serves = thread::spawn({
        let (runtime, server) = (runtime.clone(), server.clone());
        move || runtime.run(|| server.run())
    });
    pin_to_second();
    Child::introduce()?;
    writeln!(io::stdout(), "{}", server.local_addr()?)?;
    let began = Instant::now();
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Order::Read => serde_json::to_string(&read(&runtime, began)?)?,
            Order::Count => serde_json::to_string(&count(&runtime)?)?,
            Order::Spawn(threads) => serde_json::to_string(&spawn(threads)?)?,
        };
        writeln!(io::stdout(), "{answer}")?;
    }
    server.stop();
    serves.join().expect("the server does not panic");
    Ok(())
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn read(runtime: &Runtime, began: Instant) -> io::Result<Reading> {
    let stats = runtime.stats();
    let os_thread = runtime.workers()[0].os_thread;
    let (busy, cpu) = together(|| Ok((runtime.workers()[0].busy, kernel::cpu_time(os_thread)?)))?;
    Ok(Reading {
        received: stats.op_latency.recv.count(),
        sent: stats.op_latency.send.count(),
        sleeps: stats.sleeps,
        busy: nanoseconds(busy),
        cpu: nanoseconds(cpu),
        waited: nanoseconds(kernel::waited(os_thread)?),
        threads: nanoseconds(stats.slice_length.sum()),
        at: nanoseconds(began.elapsed()),
    })
}

fn count(runtime: &Runtime) -> io::Result<Switches> {
    let now = || nix::time::ClockId::CLOCK_MONOTONIC.now().map(Duration::from);
    let read = || together(|| Ok((now()?, runtime.stats().switches)));
    let (began, before) = read()?;
    thread::sleep(STRETCH);
    let (ended, after) = read()?;
    let trace = runtime.trace();
    let of_worker = || trace.events().filter(|r| r.recorder == Recorder::Worker(0));
    let first = of_worker().next().map(|record| record.at);
    let is_meant = |at: Duration| began < at && at <= ended;
    let recorded =
        of_worker().filter(|r| is_meant(r.at) && matches!(r.event, Event::SwitchIn { .. })).count();
    Ok(Switches {
        counted: after - before,
        recorded: recorded as u64,
        overwritten: trace.overwritten() > 0 && first.is_none_or(|first| first > began),
    })
}

/// Threads of a runtime of their own, with stacks of a size that no others have; some touch more of them than others.
fn spawn(threads: usize) -> io::Result<Stacks> {
    const SIZE: usize = 128 << 10;
    const MOST_PAGES: usize = 16;

    #[inline(never)]
    fn descends(pages: usize, at_the_bottom: &dyn Fn()) {
        let mut page = [1_u8; 4096];
        black_box(&mut page);
        if pages > 0 {
            descends(pages - 1, at_the_bottom);
        } else {
            at_the_bottom();
        }
        black_box(&mut page);
    }

    let runtime = Runtime::builder().workers(1).build()?;
    let (addresses, parked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let spawn = |i: usize| {
        let (addresses, parked) = (addresses.clone(), parked.clone());
        let body = move || {
            addresses.lock().expect("nobody panics").push((&raw const i).addr());
            descends(i % MOST_PAGES, &|| {
                parked.fetch_add(1, Relaxed);
                uthread::park();
            });
        };
        Builder::new().stack_size(SIZE).spawn_in(&runtime, body)
    };
    let all = (0..threads).map(spawn).collect::<io::Result<Vec<_>>>()?;
    while parked.load(Relaxed) < threads {
        thread::sleep(Duration::from_millis(1));
    }
    let told = runtime.stacks()?.green.resident as u64;
    let smaps = kernel::resident(&addresses.lock().expect("nobody panics"))?;
    for thread in all {
        thread.thread().unpark();
        thread.join().expect("nobody panics");
    }
    Ok(Stacks { told, smaps })
}
