//! What every measurement is made with: the external service, the service and the load, put where they belong.
//!
//! **They stand for other machines.** Users and external services do not compete with the service for its cores. Here
//! they do, unless there are enough cores; so the service, in every way alike, has a lower priority
//! ([`NICENESS`]): whenever load or external service have something to do they go first. On one core the service is
//! alone there, and the others have the rest.

use std::cell::Cell;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uthread_backend::work::Amount;

use crate::child::Child;
use crate::load::{Load, Tally};
use crate::machine::Place;
use crate::usage::{Kernel, Usage};
use crate::way::{Role, Setup, Way};

/// By how much the service gives way to the others. No more than it takes: between the cores, the kernel cares less for
/// threads of a low priority, which costs those ways some percent that have more threads than cores.
pub(crate) const NICENESS: i32 = 3;

/// CPU time of a request.
pub(crate) const WORK: Duration = Duration::from_millis(10);

/// What is the same for all measurements.
pub(crate) struct Rig {
    directory: TempDir,
    databases: AtomicUsize,
    /// What takes [`WORK`] on this machine.
    work: Cell<Amount>,
}

impl Rig {
    pub(crate) fn new() -> io::Result<Rig> {
        Ok(Rig {
            directory: TempDir::with_prefix("uthread-lab-")?,
            databases: 0.into(),
            work: Cell::new(Amount::of_time(WORK)),
        })
    }

    /// What computes for [`WORK`].
    pub(crate) fn work(&self) -> Amount {
        self.work.get()
    }

    /// Measures it anew: a virtual machine is not as quick at all times.
    pub(crate) fn calibrate(&self) {
        self.work.set(Amount::of_time(WORK));
    }

    /// What would be left behind if the lab ended without ceremony.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Starts the external service and the service, in that order.
    pub(crate) fn start(
        &self,
        place: Place,
        latency_ms: RangeInclusive<u64>,
        wanted: impl FnOnce(&mut Setup),
    ) -> io::Result<Site> {
        let api = Child::start(&Role::Api { cores: place.of_others().to_vec(), latency_ms })?;
        let number = self.databases.fetch_add(1, Relaxed);
        let mut setup = Setup {
            way: Way::Green,
            cores: place.of_service().to_vec(),
            workers: None,
            preemption: true,
            groups: true,
            inline: false,
            api: api.addr(),
            database: self.directory.path().join(format!("{number}.sqlite")),
            rounds: self.work().rounds,
            image_jobs: 0,
        };
        wanted(&mut setup);
        let before = Kernel::now()?;
        let way = setup.way;
        let service = Child::start(&Role::Service(setup))?;
        Ok(Site { service, way, place, before, _api: api })
    }
}

/// A service that runs, and what it asks.
pub(crate) struct Site {
    /// Ends before what it asks.
    pub(crate) service: Child,
    way: Way,
    place: Place,
    /// It started.
    before: Kernel,
    _api: Child,
}

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What was seen in the window, or in several.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    pub(crate) before: Usage,
    pub(crate) after: Usage,
    pub(crate) kernel: Kernel,
    place: Place,
}

impl Site {
    /// Measures under a load that goes on for so long, and lets it come to its end, so that every answer is checked. One
    /// at a time that takes too long: then the service is ended.
    pub(crate) fn measure(mut self, mut load: Load, timing: Timing) -> io::Result<Seen> {
        /// The answers that are still to come take less than a second.
        const DRAIN: Duration = Duration::from_secs(5);
        std::thread::sleep(timing.warm_up);
        let before = self.service.usage()?;
        let from = Instant::now();
        std::thread::sleep(timing.measured);
        let to = Instant::now();
        let after = self.service.usage()?;
        let kernel = Kernel::now()?.since(self.before);
        let drain = if self.way == Way::OneAtATime { Duration::ZERO } else { DRAIN };
        if !load.drained_within(drain) {
            load.cut_off();
            drop(self.service);
        }
        Ok(Seen { tally: load.tally(from, to)?, before, after, kernel, place: self.place })
    }

    /// Where the load goes, and where it runs.
    pub(crate) fn for_load(&self) -> (std::net::SocketAddr, &'static [usize]) {
        (self.service.addr(), self.place.of_others())
    }
}

impl Seen {
    /// Adds what was seen of the same way in another window.
    pub(crate) fn join(&mut self, other: &Seen) {
        self.tally.join(&other.tally);
        self.after.advance(&other.before, &other.after);
        self.kernel.stacks = self.kernel.stacks.max(other.kernel.stacks);
    }

    /// Of the cores that the service had.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.after.cpu_percent(&self.before, self.place.of_service().len())
    }

    /// Between the two readings, for each request that was answered in the window.
    pub(crate) fn per_request(&self, counter: impl Fn(&Usage) -> u64) -> f64 {
        let count = counter(&self.after).saturating_sub(counter(&self.before));
        count as f64 / self.tally.answered().max(1) as f64
    }
}
