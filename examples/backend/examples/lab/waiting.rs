//! The story: requests that wait for somebody else and compute a little, in four ways, on one core and on all.
//!
//! **How many at a time.** As many requests are under way as saturate the cores three times over. While a request waits
//! for the external service, others can compute: `(wait + work) / work` requests keep a core busy, on average; with
//! three times as many there is always one that can. The number is the same for every way, also for the one that takes
//! one at a time: its other users wait in the listener's queue.
//!
//! **Rounds.** Machines are quicker at one time than at another, so the class that the story is about is measured in several
//! rounds, in which the ways have their turns one after the other and then back again; what they have done is added up.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use crate::load::Load;
use crate::machine::Place;
use crate::question::Orders;
use crate::rig::{Rig, Seen, Timing, WORK};
use crate::way::Way;

/// By how many times requests under way are more than would saturate the cores.
const TIMES: u32 = 3;

/// How far away the external service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Class {
    Local,
    Region,
    Far,
    /// All that a request waits for in the story, in one piece.
    Story,
}

impl Class {
    pub(crate) const ALL: [Class; 4] = [Class::Local, Class::Region, Class::Far, Class::Story];

    pub(crate) fn latency_ms(self) -> RangeInclusive<u64> {
        match self {
            Class::Local => 1..=2,
            Class::Region => 20..=30,
            Class::Far => 90..=100,
            Class::Story => 240..=260,
        }
    }

    pub(crate) fn name(self) -> String {
        let latency = self.latency_ms();
        format!("{}–{} ms", latency.start(), latency.end())
    }

    /// Of a request that nobody is in the way of.
    fn latency(self) -> Duration {
        let wait = self.latency_ms();
        Duration::from_millis(wait.start() + wait.end()) / 2 + WORK
    }

    /// Requests under way on so many cores.
    pub(crate) fn in_flight(self, cores: usize) -> usize {
        let saturating = self.latency().as_secs_f64() / WORK.as_secs_f64();
        (f64::from(TIMES) * saturating * cores as f64).ceil() as usize
    }

    /// Of a request among so many, if nothing is wasted.
    pub(crate) fn latency_at_most(self) -> Duration {
        TIMES * self.latency()
    }

    /// Seconds until requests come and go as they will from then on, and to measure some hundreds of them, or some of one
    /// at a time.
    pub(crate) fn stretches(self) -> [f64; 2] {
        match self {
            Class::Local | Class::Region => [0.3, 1.5],
            Class::Far => [0.5, 2.0],
            Class::Story => [1.0, 2.0],
        }
    }

    /// Rounds in which it is measured.
    pub(crate) fn rounds(self) -> usize {
        if self == Class::Story { 2 } else { 1 }
    }
}

/// One way in one class at one place.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) class: Class,
    pub(crate) place: Place,
    pub(crate) way: Way,
    pub(crate) in_flight: usize,
    /// In the window.
    pub(crate) answered: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Requests that had no answer yet at the end.
    pub(crate) cut_off: u64,
    /// Of the service's cores.
    pub(crate) cpu_percent: f64,
    /// The rest of them: what the service did not use although requests were under way.
    pub(crate) idle_percent: f64,
    /// Resident memory, page tables, and stacks in the kernel.
    pub(crate) memory_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) kernel_switches_per_request: f64,
    pub(crate) green_switches_per_request: f64,
    /// What the others follow from.
    #[serde(skip)]
    seen: Seen,
}

/// Measures one way for a stretch of time, and adds that to the row of the same if there is one.
pub(crate) fn measure(
    rig: &Rig,
    (class, place, way): (Class, Place, Way),
    timing: Timing,
    rows: &mut Vec<Row>,
) -> io::Result<()> {
    let in_flight = class.in_flight(place.of_service().len());
    let site = rig.start(place, class.latency_ms(), |setup| setup.way = way)?;
    let (addr, on) = site.for_load();
    let load = Load::closed(addr, on, Orders::of(rig.work()), in_flight, class.latency_at_most())?;
    let seen = site.measure(load, timing)?;
    let of = |seen| Row::of((class, place, way), in_flight, seen);
    match rows.iter_mut().find(|row| (row.class, row.place, row.way) == (class, place, way)) {
        Some(row) => {
            row.seen.join(&seen);
            *row = of(row.seen.clone());
        }
        None => rows.push(of(seen)),
    }
    Ok(())
}

impl Row {
    fn of((class, place, way): (Class, Place, Way), in_flight: usize, seen: Seen) -> Row {
        let cpu_percent = seen.cpu_percent();
        let (tally, after) = (&seen.tally, &seen.after);
        Row {
            class,
            place,
            way,
            in_flight,
            answered: tally.answered(),
            requests_per_second: tally.per_second(),
            p50_ms: tally.percentile_ms(50.0),
            p99_ms: tally.percentile_ms(99.0),
            errors: tally.errors,
            first_error: tally.first_error.clone(),
            cut_off: tally.cut_off,
            cpu_percent,
            idle_percent: (100.0 - cpu_percent).max(0.0),
            memory_bytes: after.resident + after.page_tables + seen.kernel.stacks,
            threads: after.threads,
            kernel_switches_per_request: seen.per_request(|usage| usage.kernel_switches),
            green_switches_per_request: seen.per_request(|usage| usage.counted.green_switches),
            seen,
        }
    }
}
