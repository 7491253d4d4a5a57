//! Many kinds of work in one process: plain requests, first alone, then while images are made smaller on all cores.
//!
//! A plain request looks something up in the database, asks an external service nearby, records the order, and
//! computes next to nothing. They come at a fixed rate that leaves the service mostly idle. Twice as many images
//! as there are cores are being worked on at any time, by the same process. How long the requests take then is up to who
//! shares out the CPU: the kernel, between OS threads; the runtime, between green threads; or nobody.

use std::io;

use serde::Serialize;

use crate::load::Load;
use crate::machine::{Place, cores};
use crate::question::Orders;
use crate::rig::{Rig, Seen, Timing};
use crate::waiting::Class;
use crate::way::{Setup, Way};

/// Requests per second.
const RATE: f64 = 200.0;

/// Next to nothing.
const ROUNDS: u32 = 1;

/// Who shares out the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Variant {
    Green,
    GreenWithoutGroups,
    GreenWithoutPreemption,
    GreenWithoutBoth,
    OsThreads,
    Tokio,
    TokioInline,
}

impl Variant {
    pub(crate) const ALL: [Variant; 7] = [
        Variant::Green,
        Variant::GreenWithoutGroups,
        Variant::GreenWithoutPreemption,
        Variant::GreenWithoutBoth,
        Variant::OsThreads,
        Variant::Tokio,
        Variant::TokioInline,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Green => "green threads",
            Variant::GreenWithoutGroups => "green threads, no groups",
            Variant::GreenWithoutPreemption => "green threads, no preemption",
            Variant::GreenWithoutBoth => "green threads, neither",
            Variant::OsThreads => "OS threads",
            Variant::Tokio => "tokio, spawn_blocking",
            Variant::TokioInline => "tokio, work inline",
        }
    }

    fn apply(self, setup: &mut Setup) {
        use Variant::{GreenWithoutBoth, GreenWithoutGroups, GreenWithoutPreemption};
        setup.way = match self {
            Variant::OsThreads => Way::OsThreads,
            Variant::Tokio | Variant::TokioInline => Way::Tokio,
            _ => Way::Green,
        };
        setup.groups = !matches!(self, GreenWithoutGroups | GreenWithoutBoth);
        setup.preemption = !matches!(self, GreenWithoutPreemption | GreenWithoutBoth);
        setup.inline = self == Variant::TokioInline;
    }
}

/// What requests took in one of the two phases.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Phase {
    pub(crate) answered: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) cut_off: u64,
    pub(crate) cpu_percent: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) variant: Variant,
    /// Nothing else runs.
    pub(crate) idle: Phase,
    /// Images are worked on.
    pub(crate) loaded: Phase,
    pub(crate) images_per_second: f64,
    /// The p99 when loaded, in those when idle; none if nothing was answered.
    pub(crate) p99_times: Option<f64>,
}

pub(crate) fn measure(rig: &Rig, variant: Variant, timing: Timing) -> io::Result<Row> {
    let idle = phase(rig, variant, 0, timing)?;
    let loaded = phase(rig, variant, 2 * cores().len(), timing)?;
    let images = loaded.after.counted.images - loaded.before.counted.images;
    let seconds = (loaded.after.at - loaded.before.at).as_secs_f64();
    let (idle, loaded) = (Phase::of(&idle), Phase::of(&loaded));
    Ok(Row {
        variant,
        images_per_second: images as f64 / seconds,
        p99_times: (loaded.answered > 0).then(|| loaded.p99_ms / idle.p99_ms),
        idle,
        loaded,
    })
}

fn phase(rig: &Rig, variant: Variant, image_jobs: usize, timing: Timing) -> io::Result<Seen> {
    let site = rig.start(Place::AllCores, Class::Local.latency_ms(), |setup| {
        variant.apply(setup);
        setup.rounds = ROUNDS;
        setup.image_jobs = image_jobs;
    })?;
    let (addr, on) = site.for_load();
    let question = Orders::of(uthread_backend::work::Amount { rounds: ROUNDS });
    let load = Load::open(addr, on, question, RATE, None)?;
    site.measure(load, timing)
}

impl Phase {
    fn of(seen: &Seen) -> Phase {
        let tally = &seen.tally;
        Phase {
            answered: tally.answered(),
            p50_ms: tally.percentile_ms(50.0),
            p99_ms: tally.percentile_ms(99.0),
            max_ms: tally.percentile_ms(100.0),
            errors: tally.errors,
            first_error: tally.first_error.clone(),
            cut_off: tally.cut_off,
            cpu_percent: seen.cpu_percent(),
        }
    }
}
