//! The same figures for ten threads, a hundred, ..., a million: what grows with their number.
//!
//! **Problem.** A process with a million threads cannot be had beside one with ten, nor on every machine;
//! and OS threads end where the kernel's limits are, far below.
//!
//! **Choice.** At each number the sides take turns, each in a process of its own (`pace`), and so do the
//! rounds. A side's sweep ends where its room does (`limits`), at a last point of as many threads as
//! there is room for, and the report says what ended it. The memory of parked threads is read by rows of
//! `memory`, for the same numbers.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::case::{Case, Kind, Task, delegate_in_turns};
use crate::limits::Room;
use crate::measure::{Plan, Samples};
use crate::pace::Pace;
use crate::report::Outcome;

/// The name under which it is asked for.
pub(crate) const NAME: &str = "sweep";

/// The sides whose pace is measured.
const KINDS: [Kind; 3] = [Kind::Coroutine, Kind::Std, Kind::DEFAULT];

/// Creating a crowd of OS threads is not to take longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The numbers of threads: fewer if it is to be `quick`.
fn counts(quick: bool) -> impl Iterator<Item = usize> {
    let most = if quick { 3 } else { 6 };
    (1..=most).map(|digits| 10_usize.pow(digits))
}

/// One side at one number of threads, in nanoseconds for a thread.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    pub(crate) threads: usize,
    pub(crate) first_life: Samples,
    pub(crate) life: Samples,
    pub(crate) switch: Samples,
    pub(crate) wake: Samples,
    /// Why there are fewer threads than asked for.
    pub(crate) limit: Option<String>,
}

impl Point {
    fn new(side: Side, rounds: &[Pace]) -> Point {
        let samples = |figure: fn(&Pace) -> f64| rounds.iter().map(figure).collect();
        Point {
            kind: side.kind,
            threads: rounds.iter().map(|pace| pace.threads).min().expect("at least one round"),
            first_life: samples(|pace| pace.first_life),
            life: samples(|pace| pace.life),
            switch: samples(|pace| pace.switch),
            wake: samples(|pace| pace.wake),
            limit: rounds.iter().find_map(|pace| pace.limit.clone()).or(side.room.limit),
        }
    }
}

/// A side at one number of threads, yet to be measured.
struct Side {
    kind: Kind,
    room: Room,
}

impl Side {
    /// `before` is its last point. A room that is no wider than that is an error.
    fn at(kind: Kind, count: usize, before: Option<&Point>) -> io::Result<Side> {
        let mut room = Room::of(count);
        room.narrow_to_memory(kind.bound())?;
        if kind == Kind::Std {
            room.narrow_to_processes();
            if let Some(point) = before {
                room.narrow_to_time(point.first_life.median, PATIENCE);
            }
        }
        let reached = before.map_or(0, |point| point.threads);
        match &room.limit {
            Some(limit) if room.threads <= reached => Err(io::Error::other(limit.clone())),
            _ => Ok(Side { kind, room }),
        }
    }

    fn task(&self, plan: &Plan) -> Task {
        Task::Pace(Case { kind: self.kind, threads: self.room.threads }, plan.stretch)
    }
}

/// Measures the sides in turns, from few threads to many; the points are sorted by sides.
pub(crate) fn in_turns(plan: &Plan, quick: bool) -> Vec<Outcome<Point>> {
    let mut outcomes: Vec<Outcome<Point>> = Vec::new();
    let mut kinds = KINDS.to_vec();
    for count in counts(quick) {
        let name = |kind| format!("{NAME}, {}", Case { kind, threads: count }.name());
        let mut sides = Vec::new();
        for kind in kinds.drain(..) {
            let mut points = outcomes.iter().rev().flat_map(|outcome| &outcome.result);
            match Side::at(kind, count, points.find(|point| point.kind == kind)) {
                Ok(side) => sides.push(side),
                Err(error) => outcomes.push(Outcome { name: name(kind), result: Err(error) }),
            }
        }
        let tasks: Vec<_> = sides.iter().map(|side| side.task(plan)).collect();
        let results = delegate_in_turns::<Pace>(&tasks, plan);
        for (side, result) in sides.into_iter().zip(results) {
            let kind = side.kind;
            let result = result.map(|rounds| Point::new(side, &rounds));
            // Where there was a limit it has come as far as it can.
            if result.as_ref().is_ok_and(|point| point.limit.is_none()) {
                kinds.push(kind);
            }
            outcomes.push(Outcome { name: name(kind), result });
        }
    }
    outcomes.sort_by_key(|outcome| outcome.result.as_ref().ok().map(|point| point.kind));
    outcomes
}

/// The rows of memory that belong to these points.
pub(crate) fn memory_cases(points: &[Point]) -> Vec<Case> {
    let case = |kind| move |point: &Point| Case { kind, threads: point.threads };
    let of = |kind| points.iter().filter(move |point| point.kind == kind);
    let own = KINDS.into_iter().flat_map(|kind| of(kind).map(case(kind)));
    own.chain(of(Kind::DEFAULT).map(case(Kind::SMALL))).collect()
}
