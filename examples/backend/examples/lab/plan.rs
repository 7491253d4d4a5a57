//! What is measured, in which order, and for how long.
//!
//! Every cell of the tables takes processes that start and end, which is what it is, and a stretch of time that may be
//! longer or shorter. So the time that is given to the lab decides the stretches: what the processes take is subtracted,
//! and the rest is shared out in proportion to what each cell needs for figures worth having.

use std::fmt;
use std::io;
use std::time::Duration;

use clap::ValueEnum;

use crate::machine::Place;
use crate::mixed::{self, Variant};
use crate::report::Report;
use crate::rig::{Rig, Timing};
use crate::waiting::Class;
use crate::way::Way;
use crate::{crowd, waiting, workers};

/// The parts of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Requests that wait and compute, in four ways
    Waiting,
    /// Ten thousand requests that wait at the same time
    Crowd,
    /// Requests while images are made smaller
    Mixed,
    /// One worker to eight
    Workers,
}

/// One measurement.
#[derive(Clone, Copy)]
enum Cell {
    Waiting(Class, Place, Way),
    Crowd(Way),
    Mixed(Variant),
    Workers(workers::Kind, usize),
}

/// All of them.
pub(crate) struct Plan {
    cells: Vec<Cell>,
    /// By what the stretches of time are longer than they are planned.
    pace: f64,
    crowd: crowd::Size,
}

impl Plan {
    /// Of these parts, in about so much time; with fewer cells if it is to be `quick`.
    pub(crate) fn new(is_wanted: impl Fn(Part) -> bool, time: Duration, quick: bool) -> Plan {
        let mut cells = Vec::new();
        let classes: &[_] = if quick { &[Class::Story] } else { &Class::ALL };
        let variants: &[_] = if quick { &[Variant::Green, Variant::Tokio] } else { &Variant::ALL };
        let numbers = if quick { vec![1, 2] } else { workers::numbers() };
        for class in classes.iter().filter(|_| is_wanted(Part::Waiting)) {
            for place in Place::all().iter().filter(|place| !quick || **place == Place::all()[0]) {
                for round in 0..if quick { 1 } else { class.rounds() } {
                    let mut ways = Way::ALL;
                    if round % 2 == 1 {
                        ways.reverse();
                    }
                    cells.extend(ways.map(|way| Cell::Waiting(*class, *place, way)));
                }
            }
        }
        if is_wanted(Part::Crowd) {
            cells.extend(crowd::WAYS.map(Cell::Crowd));
        }
        if is_wanted(Part::Mixed) {
            cells.extend(variants.iter().copied().map(Cell::Mixed));
        }
        for kind in workers::Kind::ALL.into_iter().filter(|_| is_wanted(Part::Workers)) {
            cells.extend(numbers.iter().map(|number| Cell::Workers(kind, *number)));
        }
        let crowd = if quick {
            crowd::Size { requests: 500, hold: Duration::from_millis(600) }
        } else {
            crowd::Size { requests: 10_000, hold: Duration::from_secs(5) }
        };
        let mut plan = Plan { cells, pace: 1.0, crowd };
        let [fixed, flexible] =
            [0, 1].map(|i| plan.cells.iter().map(|cell| plan.costs(cell)[i]).sum::<f64>());
        if flexible > 0.0 {
            plan.pace = ((time.as_secs_f64() - fixed) / flexible).max(0.1);
        }
        plan
    }

    /// Measures all of it. A cell that fails is told, and the others are measured.
    pub(crate) fn carry_out(&self, rig: &Rig, report: &mut Report, mut tell: impl FnMut(&Step)) {
        for (i, cell) in self.cells.iter().enumerate() {
            // Ways that are compared have the same to compute.
            let group = |cell: &Cell| match *cell {
                Cell::Waiting(class, place, _) => Some((class, place)),
                _ => None,
            };
            if i > 0 && group(cell) != group(&self.cells[i - 1]) {
                rig.calibrate();
            }
            let left = self.time_of(&self.cells[i..]);
            let (number, of) = (i + 1, self.cells.len());
            tell(&Step { number, of, name: cell.name(), left });
            if let Err(error) = self.measure(cell, rig, report) {
                report.failures.push(format!("{}: {error}", cell.name()));
            }
        }
    }

    fn time_of(&self, cells: &[Cell]) -> Duration {
        let seconds = cells.iter().map(|cell| {
            let [fixed, flexible] = self.costs(cell);
            fixed + flexible * self.pace
        });
        Duration::from_secs_f64(seconds.sum())
    }

    /// Seconds of a cell: those of its processes, of the first and of the last answers, and those it measures.
    fn costs(&self, cell: &Cell) -> [f64; 2] {
        let [warm_up, measured] = stretches(cell);
        match cell {
            // What is still under way is not waited for.
            Cell::Waiting(_, _, Way::OneAtATime) => [0.3 + warm_up, measured],
            Cell::Waiting(class, ..) => {
                [0.3 + warm_up + class.latency_at_most().as_secs_f64(), measured]
            }
            Cell::Crowd(_) => [0.5 + 1.7 * self.crowd.hold.as_secs_f64(), 0.0],
            Cell::Mixed(_) => [0.5 + 2.0 * warm_up, 2.0 * measured],
            Cell::Workers(..) => [0.3 + warm_up, measured],
        }
    }

    fn measure(&self, cell: &Cell, rig: &Rig, report: &mut Report) -> io::Result<()> {
        let [warm_up, measured] = stretches(cell);
        let timing = Timing {
            warm_up: Duration::from_secs_f64(warm_up),
            measured: Duration::from_secs_f64(measured * self.pace),
        };
        match *cell {
            Cell::Waiting(class, place, way) => {
                waiting::measure(rig, (class, place, way), timing, &mut report.waiting)?;
            }
            Cell::Crowd(way) => report.crowd.push(crowd::measure(rig, way, self.crowd)?),
            Cell::Mixed(variant) => report.mixed.push(mixed::measure(rig, variant, timing)?),
            Cell::Workers(kind, workers) => {
                report.workers.push(workers::measure(rig, kind, workers, timing)?);
            }
        }
        Ok(())
    }
}

/// Seconds to warm up, and to measure at the ordinary pace.
fn stretches(cell: &Cell) -> [f64; 2] {
    match cell {
        Cell::Waiting(class, ..) => class.stretches(),
        Cell::Crowd(_) => [0.0, 0.0],
        Cell::Mixed(_) => [0.4, 2.4],
        Cell::Workers(..) => [0.2, 0.8],
    }
}

impl Cell {
    fn name(&self) -> String {
        match self {
            Cell::Waiting(class, place, way) => {
                format!("wait {}, {}: {}", class.name(), place.name(), way.name())
            }
            Cell::Crowd(way) => format!("requests that wait together: {}", way.name()),
            Cell::Mixed(variant) => format!("requests beside images: {}", variant.name()),
            Cell::Workers(kind, 1) => format!("{}: 1 worker", kind.name()),
            Cell::Workers(kind, workers) => format!("{}: {workers} workers", kind.name()),
        }
    }
}

/// A cell whose turn it is.
pub(crate) struct Step {
    number: usize,
    of: usize,
    name: String,
    /// This one included.
    left: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { number, of, name, left } = self;
        write!(f, "[{number:>2}/{of}, about {:>3} s left] {name}", left.as_secs())
    }
}
