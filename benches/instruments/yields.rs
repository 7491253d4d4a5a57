//! A switch between two threads that yield.

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use uthread::Runtime;

use crate::Part;
use crate::child::Child;
use crate::common::{Goal, median, pin_to, table};
use crate::variants::{BUILDS, Variants};

/// Nanoseconds that counters, time accounts and histograms may add to the reading of the clock, and the recorder to that.
const MOST: f64 = 3.0;

/// Yields per stretch.
const QUICK: u32 = 200_000;
const FULL: u32 = 2_000_000;

/// The child's life: for each line, a number of yields, what one took and what reading the clock took.
pub(crate) fn measure_here() -> io::Result<()> {
    pin_to(1)?;
    let runtime = Runtime::builder().workers(1).build()?;
    Child::introduce()?;
    for line in io::stdin().lock().lines() {
        let yields = line?.parse().map_err(io::Error::other)?;
        writeln!(
            io::stdout(),
            "{} {}",
            runtime.run(|| yielding(yields)),
            reading_the_clock(yields)
        )?;
    }
    Ok(())
}

/// Nanoseconds per yield: two threads take turns.
fn yielding(yields: u32) -> f64 {
    let over = AtomicBool::new(false);
    uthread::scope(|s| {
        s.spawn(|| {
            while !over.load(Relaxed) {
                uthread::yield_now();
            }
        });
        uthread::yield_now();
        let start = Instant::now();
        for _ in 0..yields / 2 {
            uthread::yield_now();
        }
        let elapsed = start.elapsed();
        over.store(true, Relaxed);
        elapsed.as_nanos() as f64 / f64::from(yields)
    })
}

/// Nanoseconds that it takes to read the clock as a worker does: by the counter of cycles, scaled, if that is what the
/// kernel does, or else by asking it.
fn reading_the_clock(times: u32) -> f64 {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let counts = cfg!(target_arch = "x86_64")
        && std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc");
    let start = Instant::now();
    for _ in 0..times {
        if counts {
            black_box(scaled_cycles(black_box(1 << 31)))
        } else {
            asked()
        };
    }
    start.elapsed().as_nanos() as f64 / f64::from(times)
}

#[cfg(target_arch = "x86_64")]
fn scaled_cycles(scale: u64) -> u64 {
    // SAFETY: the instruction has no preconditions.
    let cycles = unsafe { std::arch::x86_64::_rdtsc() };
    cycles.wrapping_mul(scale) >> 32
}

#[cfg(not(target_arch = "x86_64"))]
fn scaled_cycles(scale: u64) -> u64 {
    scale
}

fn asked() -> u64 {
    black_box(Instant::now());
    0
}

pub(crate) fn measure(variants: &Variants, quick: bool) -> io::Result<[Goal; 2]> {
    let (rounds, yields) = if quick { (15, QUICK) } else { (41, FULL) };
    let children = BUILDS.iter().zip(&variants.0);
    let children = children.map(|(build, program)| Child::start(program, Part::Yield, *build));
    let mut children = children.collect::<io::Result<Vec<_>>>()?;
    let mut times: [_; 3] = std::array::from_fn(|_| Vec::new());
    let mut clocks = Vec::new();
    // The first round warms up.
    for round in 0..=rounds {
        for (child, times) in children.iter_mut().zip(&mut times) {
            child.order(&yields.to_string())?;
            let answer = child.answer()?;
            let (time, clock) = answer.split_once(' ').expect("two figures");
            if round > 0 {
                times.push(time.parse().map_err(io::Error::other)?);
                clocks.push(clock.parse().map_err(io::Error::other)?);
            }
        }
    }
    let least = |values: &Vec<f64>| values.iter().copied().fold(f64::INFINITY, f64::min);
    let leasts = (times.each_ref().map(least), least(&clocks));
    let medians = (times.map(median), median(clocks));
    let mut rows =
        table(&["switch of two that yield, ns", "bare", "and counters", "and recorder", "clock"]);
    for (name, ([bare, counting, full], clock)) in [("median", medians), ("least", leasts)] {
        let added = |more: f64, less: f64| format!("{more:.1} ({:+.1})", more - less);
        rows.add_row([
            name.to_owned(),
            format!("{bare:.1}"),
            added(counting, bare),
            added(full, counting),
            format!("{clock:.1}"),
        ]);
    }
    println!("{rows}");
    let ([bare, counting, full], clock) = medians;
    let (counters, recorder) = (counting - bare, full - counting);
    Ok([
        Goal {
            text: format!(
                "counters, time accounts and histograms take at most a reading of the clock and {MOST} ns of a switch: \
                 {counters:.1} ns, of which {clock:.1} for the clock"
            ),
            met: counters <= clock + MOST,
        },
        Goal {
            text: format!("the recorder takes at most {MOST} ns more: {recorder:.1} ns"),
            met: recorder <= MOST,
        },
    ])
}
