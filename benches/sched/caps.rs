//! What a group with a cap gets: 20 ms of each 100.
//!
//! A green thread of the default group samples. On one worker nobody else runs at that moment.

use std::io;
use std::time::{Duration, Instant};

use uthread::{Builder, Group, Runtime};

use crate::common::{Goal, pin_to, spin, table};
use crate::rig::{Got, runtime};

const QUOTA: Duration = Duration::from_millis(20);
const PERIOD: Duration = Duration::from_millis(100);
const EVERY: Duration = Duration::from_millis(10);
const HOGS: usize = 2;

/// Nanoseconds: when, and what the group had got.
type Sample = (u64, u64);

/// Samples for so long, whatever may delay that.
fn samples(runtime: &Runtime, group: &Group, time: Duration) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::with_capacity(time.div_duration_f64(EVERY) as usize + 1);
    for i in 0..samples.capacity() as u32 {
        uthread::sleep((EVERY * i).saturating_sub(start.elapsed()));
        let used = uthread::without_preemption(|| runtime.group_stats(group).run_time);
        samples.push((start.elapsed().as_nanos() as u64, used.as_nanos() as u64));
    }
    samples
}

/// Hogs in the capped group, and others in the default one; what the former got.
fn run(workers: usize, others: usize, time: Duration) -> io::Result<Vec<Sample>> {
    let runtime = runtime(workers)?;
    let capped = Group::builder().name("capped").cap(QUOTA, PERIOD).build()?;
    let over = std::sync::atomic::AtomicBool::new(false);
    Ok(runtime.run(|| {
        uthread::scope(|s| {
            for _ in 0..HOGS {
                let hog = Builder::new().group(&capped);
                hog.spawn_scoped(s, || spin(&over)).expect("a hog");
            }
            for _ in 0..others {
                s.spawn(|| spin(&over));
            }
            // Until it was throttled for the first time.
            uthread::sleep(PERIOD);
            let samples = samples(&runtime, &capped, time);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            samples
        })
    }))
}

/// Milliseconds in each window as long as a period, but for those that a late sample made longer.
fn windows(samples: &[Sample]) -> Vec<f64> {
    let period = PERIOD.as_nanos() as u64;
    let length = (period / EVERY.as_nanos() as u64) as usize;
    let windows = samples.windows(length + 1).map(|w| (w[length].0 - w[0].0, w[length].1 - w[0].1));
    let exact = windows.filter(|(time, _)| time.abs_diff(period) < period / 100);
    exact.map(|(_, used)| used as f64 / 1e6).collect()
}

pub(crate) fn measure(time: Duration) -> io::Result<Vec<Goal>> {
    let header = [
        "20 ms of 100",
        "workers",
        "got in a period [ms]",
        "least in any 100 ms",
        "most in any 100 ms",
        "CPU got [%]",
    ];
    let mut rows = table(&header);
    let mut off = 0.0_f64;
    let quota = QUOTA.as_secs_f64() * 1e3;
    for workers in [1, 2] {
        pin_to(workers)?;
        for others in [0, 4] {
            let cpu = Got::now();
            let samples = run(workers, others, time)?;
            let cpu = cpu.percent_of(workers);
            let (first, last) = (samples[0], samples[samples.len() - 1]);
            let periods = (last.0 - first.0) as f64 / PERIOD.as_nanos() as f64;
            let got = (last.1 - first.1) as f64 / 1e6 / periods;
            off = off.max((got - quota).abs());
            let windows = windows(&samples);
            rows.add_row([
                if others == 0 { "alone" } else { "beside 4 hogs" }.to_owned(),
                workers.to_string(),
                format!("{got:.2}"),
                format!("{:.2}", windows.iter().copied().fold(f64::INFINITY, f64::min)),
                format!("{:.2}", windows.iter().copied().fold(0.0, f64::max)),
                format!("{cpu:.1}"),
            ]);
        }
    }
    println!("{rows}\n");
    Ok(vec![Goal {
        text: format!("a capped group gets its {quota} ms of a period within 1 ms: {off:.2}"),
        met: off <= 1.0,
    }])
}
