//! How late a thread of a light group runs that wakes up among a heavy group's hogs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use uthread::{Builder, Group};

use crate::common::{Goal, pin_to, quantile, spin, stolen, table};
use crate::rig::{group, runtime, work};

const PERIOD: Duration = Duration::from_millis(1);
const BURST: Duration = Duration::from_micros(20);
/// Wake-ups by which the scheduler learns how little the sleeper needs. They stand by themselves.
const FIRST: usize = 20;
const HOGS: usize = 4;
const LIGHT: u32 = 50;
const HEAVY: u32 = 1000;
const LATENCY: Duration = Duration::from_micros(10);

/// What the kernel weighs nearly as the groups: 4 × 272 and 56, of `sched_prio_to_weight`.
const NICE_HOG: libc::c_int = 6;
const NICE_LIGHT: libc::c_int = 13;

/// Who the threads are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The light one says how soon it wants to be served.
    Latency,
    /// The scheduler finds out.
    Groups,
    OneGroup,
    Nice,
    Plain,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Latency, Kind::Groups, Kind::OneGroup, Kind::Nice, Kind::Plain];

    fn name(self) -> &'static str {
        match self {
            Kind::Latency => "groups, 50 : 1000, latency 10 µs",
            Kind::Groups => "groups, 50 : 1000",
            Kind::OneGroup => "all in the default group",
            Kind::Nice => "OS threads, nice, 56 : 1088",
            Kind::Plain => "OS threads",
        }
    }
}

struct Outcome {
    /// Nanoseconds, of the first wake-ups and of the others; sorted.
    first: Vec<u64>,
    late: Vec<u64>,
    /// The sleeper's part of the CPU, in percent.
    share: f64,
}

/// How late each of so many sleeps ends, until `limit` has passed: it may be very late. In nanoseconds.
fn naps(wakes: usize, limit: Duration, sleep: impl Fn(Duration)) -> Vec<u64> {
    let (start, mut late) = (Instant::now(), Vec::with_capacity(wakes));
    while late.len() < wakes && start.elapsed() < limit {
        let before = Instant::now();
        sleep(PERIOD);
        late.push((before.elapsed().saturating_sub(PERIOD)).as_nanos() as u64);
        work(BURST);
    }
    late
}

/// As [`naps`], with the part that the sleeper used of so many cores, by `used`.
fn sleeper(
    cores: usize,
    wakes: usize,
    sleep: impl Fn(Duration),
    used: impl Fn() -> Duration,
) -> Outcome {
    let (start, before) = (Instant::now(), used());
    let mut first = naps(FIRST, PERIOD * 20 * FIRST as u32, &sleep);
    let mut late = naps(wakes, PERIOD * 2 * wakes as u32, &sleep);
    let part = (used() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    first.sort_unstable();
    late.sort_unstable();
    Outcome { first, late, share: 100.0 * part / cores as f64 }
}

fn green(workers: usize, wakes: usize, groups: Option<[Group; 2]>) -> io::Result<Outcome> {
    let [light, heavy] = groups.unwrap_or_else(|| [(); 2].map(|_| Group::current()));
    let runtime = runtime(workers)?;
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..HOGS {
        let over = over.clone();
        Builder::new().group(&heavy).spawn_in(&runtime, move || spin(&over))?;
    }
    let used = || uthread::schedstat().run_time;
    let body = move || sleeper(workers, wakes, uthread::sleep, used);
    let outcome = Builder::new().group(&light).spawn_in(&runtime, body)?.join();
    over.store(true, Relaxed);
    Ok(outcome.expect("it does not panic"))
}

/// Makes the calling OS thread give way to others.
fn be_nice(nice: libc::c_int) {
    // SAFETY: it takes no pointers; 0 is the calling thread. To be nicer is always allowed.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }, 0);
}

fn thread_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock.now().expect("the clock exists").into()
}

fn os(cores: usize, wakes: usize, nice: Option<[libc::c_int; 2]>) -> Outcome {
    let over = AtomicBool::new(false);
    let [light, heavy] = nice.map_or([None; 2], |nice| nice.map(Some));
    std::thread::scope(|s| {
        for _ in 0..HOGS {
            s.spawn(|| {
                heavy.into_iter().for_each(be_nice);
                spin(&over);
            });
        }
        let body = || {
            light.into_iter().for_each(be_nice);
            sleeper(cores, wakes, std::thread::sleep, thread_time)
        };
        let outcome = s.spawn(body).join();
        over.store(true, Relaxed);
        outcome.expect("it does not panic")
    })
}

fn outcome(kind: Kind, workers: usize, wakes: usize) -> io::Result<Outcome> {
    match kind {
        Kind::Latency => {
            let telemetry = Group::builder().name("telemetry").weight(LIGHT).latency(LATENCY);
            green(workers, wakes, Some([telemetry.build()?, group("background", HEAVY)?]))
        }
        Kind::Groups => {
            let groups = [group("telemetry", LIGHT)?, group("background", HEAVY)?];
            green(workers, wakes, Some(groups))
        }
        Kind::OneGroup => green(workers, wakes, None),
        Kind::Nice => Ok(os(workers, wakes, Some([NICE_LIGHT, NICE_HOG]))),
        Kind::Plain => Ok(os(workers, wakes, None)),
    }
}

pub(crate) fn measure(wakes: usize) -> io::Result<Vec<Goal>> {
    pin_to(1)?;
    let gap = stolen(Duration::from_millis(if wakes < 1000 { 200 } else { 1000 }));
    let header = [
        "µs late",
        "workers",
        "p50",
        "p99",
        "p99.9",
        "max",
        "wake-ups",
        "first 20: p50",
        "max",
        "share of CPU [%]",
    ];
    let mut rows = table(&header);
    let (mut p99, mut most) = (0.0, 0.0_f64);
    for workers in [1, 2] {
        pin_to(workers)?;
        for kind in Kind::ALL {
            let Outcome { first, late, share } = outcome(kind, workers, wakes)?;
            let of = |values: &[u64], part| quantile(values, part) as f64 / 1e3;
            let us = |part| of(&late, part);
            if kind == Kind::Latency {
                p99 = if workers == 1 { us(0.99) } else { p99 };
                most = most.max(share);
            }
            let mut row = vec![kind.name().to_owned(), workers.to_string()];
            row.extend([0.5, 0.99, 0.999, 1.0].map(|part| format!("{:.0}", us(part))));
            row.push(late.len().to_string());
            row.extend([0.5, 1.0].map(|part| format!("{:.0}", of(&first, part))));
            row.push(format!("{share:.2}"));
            rows.add_row(row);
        }
    }
    println!("{rows}");
    println!("the machine's own largest gap was {:.0} µs\n", gap as f64 / 1e3);
    let due = 100.0 * f64::from(LIGHT) / f64::from(LIGHT + HEAVY);
    Ok(vec![
        Goal {
            text: format!(
                "p99 lateness of a light group that wants little latency, on one worker, is at most 500 µs: {p99:.0}"
            ),
            met: p99 <= 500.0,
        },
        Goal {
            text: format!("it does not get more than its {due:.2} % thereby: {most:.2}"),
            met: most <= due,
        },
    ])
}
