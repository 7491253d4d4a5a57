//! How fast threads are made, switched and woken while there are so many of them: the part of a sweep
//! that runs in a process of its own, on one core.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{Case, Kind};
use crate::crowd::Crowd;
use crate::floors;
use crate::limits::Room;
use crate::machine::Pin;
use crate::measure::{Timed, once};
use crate::threads::{Green, Os, Threads};

/// What was measured, in nanoseconds for a thread.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    pub(crate) threads: usize,
    /// Why there are fewer threads than asked for.
    pub(crate) limit: Option<String>,
    /// From spawn to join, by way of a wait for all the others: the first time, when no stack has been
    /// used yet, ...
    pub(crate) first_life: f64,
    /// ... and later.
    pub(crate) life: f64,
    /// A yield, while all others yield, too.
    pub(crate) switch: f64,
    /// Unparked, switched to, and parked again.
    pub(crate) wake: f64,
}

/// Measures it in this process, which should have done nothing yet, for so long each figure.
pub(crate) fn measure(case: &Case, stretch: Duration) -> io::Result<Pace> {
    let _pin = Pin::to_first()?;
    match case.kind {
        Kind::Coroutine => of_coroutines(case.threads, stretch),
        Kind::Std => of_threads(&Os, case.threads, stretch),
        Kind::Uthread { stack } => of_threads(&Green::with_stacks(stack)?, case.threads, stretch),
    }
}

fn of_threads<T: Threads>(host: &T, count: usize, stretch: Duration) -> io::Result<Pace> {
    host.run(|| {
        let mut crowd = Crowd::<T>::new(count);
        let mut room = Room::of(count);
        let mut first = crowd.gather_within(&mut room)?;
        first.elapsed += crowd.disperse();
        let threads = first.operations;

        let lives = |at_least: usize| {
            let crowds = at_least.div_ceil(threads);
            let lives = (0..crowds).map(|_| life(&mut crowd, threads).expect("as many as before"));
            Timed { operations: crowds * threads, elapsed: lives.sum() }
        };
        let life_each = once(Box::new(lives), stretch);

        crowd.gather(threads).1?;
        let wake = once(Box::new(|wakes| crowd.wake(wakes)), stretch);
        let switch = once(Box::new(|yields| crowd.yields(yields)), stretch);
        crowd.disperse();
        let first_life = first.nanoseconds_each();
        Ok(Pace { threads, limit: room.limit, first_life, life: life_each, switch, wake })
    })
}

/// All gather, and leave.
fn life<T: Threads>(crowd: &mut Crowd<T>, threads: usize) -> io::Result<Duration> {
    let (gathered, complete) = crowd.gather(threads);
    complete?;
    Ok(gathered.elapsed + crowd.disperse())
}

/// The floors: coroutines that suspend themselves once in their lives, and a switch for each yield and
/// each wake-up.
fn of_coroutines(count: usize, stretch: Duration) -> io::Result<Pace> {
    let mut lives = floors::coroutine_life::<1>(count)?;
    let first_life = lives(1).nanoseconds_each();
    let life = once(lives, stretch);
    let parts = floors::switches(1.0, count)?;
    let switch = parts.into_iter().map(|part| part.times * once(part.stretch, stretch)).sum();
    Ok(Pace { threads: count, limit: None, first_life, life, switch, wake: switch })
}
