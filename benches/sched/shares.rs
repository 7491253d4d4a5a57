//! Whether groups of hogs get what their weights promise: in all, and in every tenth of a second.
//!
//! Hogs sample what their groups got, since they run anyway: an OS thread would have to get the core first. At
//! that moment the hog cannot be interrupted, so that its worker's accounts hold still; another worker's may change
//! while they are read, so they are read until two readings agree.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use comfy_table::Table;
use uthread::{Builder, Group, Runtime};

use crate::common::{Goal, median, pin_to, table};
use crate::rig::{Got, SLICE, cpu_time, group, runtime};

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
    at: Instant,
    /// Seconds.
    cpu: f64,
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
            samples.push(Sample { at: Instant::now(), cpu: cpu_time(), service, work });
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

/// How far a group was from its due in a window, in milliseconds.
fn off(window: &[Sample], i: usize) -> f64 {
    let gained = gained(window[0].service, window[WINDOW].service);
    (gained[i] - gained.iter().sum::<f64>() * due(i)).abs() / 1e6
}

/// Whether other processes took less than a slice of each of so many cores: a worker without a core can do nothing.
fn is_clean(window: &[Sample], cores: usize) -> bool {
    let (first, last) = (window[0], window[WINDOW]);
    let wall = (last.at - first.at).as_secs_f64();
    wall * cores as f64 - (last.cpu - first.cpu) < SLICE.as_secs_f64() * cores as f64
}

/// The windows in which the process had the machine to itself, second by second.
fn clean_windows(samples: &[Sample], cores: usize) -> Vec<Vec<&[Sample]>> {
    let windows: Vec<_> = samples.windows(WINDOW + 1).collect();
    let seconds = windows.chunks((1_000_000_000 / EVERY) as usize);
    let clean = seconds.map(|s| s.iter().copied().filter(|w| is_clean(w, cores)).collect());
    clean.filter(|second: &Vec<_>| !second.is_empty()).collect()
}

/// What became of a group.
struct Outcome {
    share: f64,
    share_of_work: f64,
    /// How far it was off in the worst clean window of each second.
    clean: Vec<f64>,
    /// And in the worst of all.
    worst: f64,
}

fn outcome(samples: &[Sample], cores: usize, i: usize) -> Outcome {
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let worst = |windows: &[&[Sample]]| windows.iter().map(|w| off(w, i)).fold(0.0, f64::max);
    let all: Vec<_> = samples.windows(WINDOW + 1).collect();
    Outcome {
        share: parts(gained(first.service, last.service))[i],
        share_of_work: parts(gained(first.work, last.work))[i],
        clean: clean_windows(samples, cores).iter().map(|second| worst(second)).collect(),
        worst: worst(&all),
    }
}

fn add_row(rows: &mut Table, workers: usize, i: usize, outcome: &Outcome) {
    let worst = outcome.clean.iter().copied().reduce(f64::max);
    let ms = |time: Option<f64>| time.map_or("none".to_owned(), |ms| format!("{ms:.2}"));
    rows.add_row([
        format!("weight {}", WEIGHTS[i]),
        workers.to_string(),
        format!("{:.0}", 100.0 * due(i)),
        format!("{:.2}", outcome.share),
        format!("{:.2}", outcome.share_of_work),
        ms(typical(outcome)),
        ms(worst),
        ms(Some(outcome.worst)),
    ]);
}

/// The median of seconds, if any had a clean window.
fn typical(outcome: &Outcome) -> Option<f64> {
    (!outcome.clean.is_empty()).then(|| median(outcome.clean.clone()))
}

pub(crate) fn measure(time: Duration) -> io::Result<Vec<Goal>> {
    let header = [
        "shares of hogs",
        "workers",
        "due [%]",
        "got [%]",
        "of the work [%]",
        "off in 100 ms [ms]: median of seconds",
        "worst",
        "worst with noise",
    ];
    let mut rows = table(&header);
    let mut remarks = Vec::new();
    let (mut farthest, mut offs) = (0.0_f64, Vec::new());
    for workers in [1, 2] {
        pin_to(workers)?;
        let got = Got::now();
        let samples = run(workers, time)?;
        let got = got.percent_of(workers);
        let clean: usize = clean_windows(&samples, workers).iter().map(Vec::len).sum();
        let windows = samples.len().saturating_sub(WINDOW);
        remarks.push(format!(
            "workers: {workers}; the process got {got:.1} % of the cores; {clean} of {windows} windows are without noise"
        ));
        for i in 0..WEIGHTS.len() {
            let outcome = outcome(&samples, workers, i);
            farthest = farthest.max((outcome.share - 100.0 * due(i)).abs());
            if workers == 1 {
                offs.extend(typical(&outcome));
            }
            add_row(&mut rows, workers, i, &outcome);
        }
    }
    println!("{rows}\n{}", remarks.join("\n"));
    println!("noise: other processes took a slice of a core or more\n");
    let mut goals = vec![Goal {
        text: format!("groups get their shares within 1 percentage point: {farthest:.2}"),
        met: farthest <= 1.0,
    }];
    goals.extend(offs.into_iter().reduce(f64::max).map(window_goal));
    Ok(goals)
}

fn window_goal(off: f64) -> Goal {
    let slice = SLICE.as_secs_f64() * 1e3;
    Goal {
        text: format!(
            "in any 100 ms on one worker without noise, service is within {slice} ms of what is due: {off:.2}"
        ),
        met: off <= slice,
    }
}
