//! Groups, hogs, and what the process got of the machine.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use uthread::{Group, Runtime};

pub(crate) fn runtime(workers: usize) -> std::io::Result<Runtime> {
    // Told, lest the environment say otherwise: goals are in slices.
    Runtime::builder().workers(workers).slice(SLICE).build()
}

pub(crate) const SLICE: Duration = Duration::from_millis(2);

pub(crate) fn group(name: &str, weight: u32) -> std::io::Result<Group> {
    Group::builder().name(name).weight(weight).build()
}

/// Computes for so long.
pub(crate) fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The CPU time that the process has got, in seconds.
pub(crate) fn cpu_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the process exists");
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The part of the cores' time that the process gets from now on.
pub(crate) struct Got {
    start: Instant,
    cpu: f64,
}

impl Got {
    pub(crate) fn now() -> Got {
        Got { start: Instant::now(), cpu: cpu_time() }
    }

    pub(crate) fn percent_of(&self, cores: usize) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        100.0 * (cpu_time() - self.cpu) / seconds / cores as f64
    }
}
