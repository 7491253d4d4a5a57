//! When more workers help: the same requests on green threads, with one worker to eight on all cores.
//!
//! Requests that wait most of the time are bounded by how many are under way and how long each waits; one worker
//! serves them all. Requests that compute need cores, and workers up to their number.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::Load;
use crate::machine::{Place, cores};
use crate::question::Orders;
use crate::rig::{Rig, Timing};
use crate::waiting::Class;

/// What requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    Waiting,
    Computing,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Waiting, Kind::Computing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Waiting => "waiting (20–30 ms)",
            Kind::Computing => "computing (10 ms)",
        }
    }
}

/// Requests under way: for those that compute, more than there are cores; for those that wait, so few that they leave
/// most of a core idle.
const IN_FLIGHT: usize = 16;

/// Over this time they begin: about that of one of them.
const SPREAD: Duration = Duration::from_millis(100);

/// The numbers of workers. With more than eight cores, as many as those, too.
pub(crate) fn numbers() -> Vec<usize> {
    let mut numbers = vec![1, 2, 4, 8];
    numbers.extend((cores().len() > 8).then_some(cores().len()));
    numbers
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) workers: usize,
    pub(crate) in_flight: usize,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_percent: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

pub(crate) fn measure(rig: &Rig, kind: Kind, workers: usize, timing: Timing) -> io::Result<Row> {
    let (class, rounds, in_flight) = match kind {
        Kind::Waiting => (Class::Region, 1, IN_FLIGHT),
        Kind::Computing => (Class::Local, rig.work().rounds, IN_FLIGHT.max(4 * cores().len())),
    };
    let site = rig.start(Place::AllCores, class.latency_ms(), |setup| {
        setup.workers = Some(workers);
        setup.rounds = rounds;
    })?;
    let (addr, on) = site.for_load();
    let question = Orders::of(uthread_backend::work::Amount { rounds });
    let load = Load::closed(addr, on, question, in_flight, SPREAD)?;
    let seen = site.measure(load, timing)?;
    Ok(Row {
        kind,
        workers,
        in_flight,
        requests_per_second: seen.tally.per_second(),
        p50_ms: seen.tally.percentile_ms(50.0),
        p99_ms: seen.tally.percentile_ms(99.0),
        cpu_percent: seen.cpu_percent(),
        errors: seen.tally.errors,
        first_error: seen.tally.first_error,
    })
}
