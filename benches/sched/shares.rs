//! Whether groups of hogs get what their weights promise: in all, and in every tenth of a second.
//!
//! Hogs sample what their groups got, since they run anyway: an OS thread would have to get the core first. At
//! that moment the hog cannot be interrupted, so that its worker's accounts hold still; another worker's may change
//! while they are read, so they are read until two readings agree.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use uthread::{Builder, Group, Runtime};

use crate::common::{Goal, median, pin_to, table};
use crate::rig::{Got, SLICE, group, runtime};

const WEIGHTS: [u32; 3] = [100, 200, 700];
const HOGS: usize = 3;
const EVERY: u64 = 10_000_000;
/// Samples from one end of a window to the other.
const WINDOW: usize = 10;
/// Not looked at: not all hogs have begun.
const WARM_UP: u64 = 100_000_000;
/// Two readings of accounts, one after the other, agree.
const AGREE: u64 = 20_000;

/// By group.
type Each = [u64; WEIGHTS.len()];

#[derive(Clone, Copy)]
struct Sample {
    /// Nanoseconds on workers.
    service: Each,
    work: Each,
}

/// A counter with one writer, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Work(AtomicU64);

struct Scene<'a> {
    runtime: &'a Runtime,
    groups: &'a [Group; WEIGHTS.len()],
    work: [[Work; HOGS]; WEIGHTS.len()],
    start: Instant,
    end: u64,
    next: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

impl Scene<'_> {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn service(&self) -> Each {
        self.groups.each_ref().map(|g| self.runtime.group_stats(g).run_time.as_nanos() as u64)
    }

    fn agreed_service(&self) -> Each {
        let mut last = self.service();
        for _ in 0..100 {
            let service = self.service();
            if service.iter().zip(last).all(|(new, old)| new.wrapping_sub(old) < AGREE) {
                return service;
            }
            last = service;
        }
        last
    }

    fn sample(&self) {
        uthread::without_preemption(|| {
            // Whoever still holds it was stopped by the machine: its sample stands for this one.
            let Ok(mut samples) = self.samples.try_lock() else { return };
            let work = self.work.each_ref().map(|g| g.iter().map(|w| w.0.load(Relaxed)).sum());
            let service = self.agreed_service();
            // The vector is large enough: nothing is allocated here.
            samples.push(Sample { service, work });
        });
    }

    fn hog(&self, work: &Work) {
        loop {
            let now = self.now();
            work.0.store(work.0.load(Relaxed) + 1, Relaxed);
            let next = self.next.load(Relaxed);
            if now < next {
                continue;
            }
            if now >= self.end {
                return;
            }
            let later = next + EVERY * (1 + (now - next) / EVERY);
            if self.next.compare_exchange(next, later, Relaxed, Relaxed).is_ok() {
                self.sample();
            }
        }
    }
}

/// The samples of a run.
fn run(workers: usize, time: Duration) -> io::Result<Vec<Sample>> {
    let runtime = runtime(workers)?;
    let mut groups = Vec::new();
    for weight in WEIGHTS {
        groups.push(group("hogs", weight)?);
    }
    let end = WARM_UP + time.as_nanos() as u64;
    let scene = Scene {
        runtime: &runtime,
        groups: groups.as_array().expect("one for each weight"),
        work: Default::default(),
        start: Instant::now(),
        end,
        next: AtomicU64::new(WARM_UP),
        samples: Mutex::new(Vec::with_capacity((end / EVERY) as usize + 1)),
    };
    runtime.run(|| {
        uthread::scope(|s| {
            let scene = &scene;
            for (group, works) in scene.groups.iter().zip(&scene.work) {
                for work in works {
                    let hog = Builder::new().group(group);
                    hog.spawn_scoped(s, move || scene.hog(work)).expect("a hog");
                }
            }
        });
    });
    let samples = scene.samples.into_inner().expect("nobody panicked");
    drop(runtime);
    Ok(samples)
}

fn gained(from: Each, to: Each) -> [f64; WEIGHTS.len()] {
    std::array::from_fn(|i| to[i].saturating_sub(from[i]) as f64)
}

/// The part of the sum that each has, in percent.
fn parts(values: [f64; WEIGHTS.len()]) -> [f64; WEIGHTS.len()] {
    let sum: f64 = values.iter().sum();
    values.map(|value| 100.0 * value / sum)
}

fn due(i: usize) -> f64 {
    f64::from(WEIGHTS[i]) / f64::from(WEIGHTS.iter().sum::<u32>())
}

/// How far a group was from its due in a window at most, in milliseconds.
fn worst_window(samples: &[Sample], i: usize) -> f64 {
    let off = |window: &[Sample]| {
        let gained = gained(window[0].service, window[WINDOW].service);
        (gained[i] - gained.iter().sum::<f64>() * due(i)).abs() / 1e6
    };
    samples.windows(WINDOW + 1).map(off).fold(0.0, f64::max)
}

/// What became of each group.
struct Outcome {
    share: f64,
    share_of_work: f64,
    /// The worst window of each second.
    windows: Vec<f64>,
}

fn outcomes(samples: &[Sample]) -> Vec<Outcome> {
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let shares = parts(gained(first.service, last.service));
    let of_work = parts(gained(first.work, last.work));
    // Windows that reach into the next second belong to both.
    let second = (1_000_000_000 / EVERY) as usize;
    let starts = (0..samples.len().saturating_sub(WINDOW)).step_by(second);
    let seconds: Vec<&[Sample]> =
        starts.map(|from| &samples[from..(from + second + WINDOW).min(samples.len())]).collect();
    (0..WEIGHTS.len())
        .map(|i| Outcome {
            share: shares[i],
            share_of_work: of_work[i],
            windows: seconds.iter().map(|samples| worst_window(samples, i)).collect(),
        })
        .collect()
}

pub(crate) fn measure(time: Duration) -> io::Result<Vec<Goal>> {
    let header = [
        "shares of hogs",
        "workers",
        "due [%]",
        "got [%]",
        "of the work [%]",
        "worst of 100 ms off by [ms], median of seconds",
        "worst",
    ];
    let mut rows = table(&header);
    let (mut farthest, mut off) = (0.0_f64, 0.0_f64);
    let mut got = Vec::new();
    for workers in [1, 2] {
        pin_to(workers)?;
        let cpu = Got::now();
        let outcomes = outcomes(&run(workers, time)?);
        got.push(cpu.percent_of(workers));
        for (i, Outcome { share, share_of_work, windows }) in outcomes.into_iter().enumerate() {
            let worst = windows.iter().copied().fold(0.0, f64::max);
            let typical = median(windows);
            farthest = farthest.max((share - 100.0 * due(i)).abs());
            if workers == 1 {
                off = off.max(typical);
            }
            rows.add_row([
                format!("weight {}", WEIGHTS[i]),
                workers.to_string(),
                format!("{:.0}", 100.0 * due(i)),
                format!("{share:.2}"),
                format!("{share_of_work:.2}"),
                format!("{typical:.2}"),
                format!("{worst:.2}"),
            ]);
        }
    }
    println!("{rows}");
    println!("the process got {:.1} % of one core and {:.1} % of two\n", got[0], got[1]);
    let slice = SLICE.as_secs_f64() * 1e3;
    Ok(vec![
        Goal {
            text: format!("groups get their shares within 1 percentage point: {farthest:.2}"),
            met: farthest <= 1.0,
        },
        Goal {
            text: format!(
                "in any 100 ms on one worker, service is within {slice} ms of what is due: {off:.2}"
            ),
            met: off <= slice,
        },
    ])
}
