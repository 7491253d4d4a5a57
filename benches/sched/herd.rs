//! Many threads that become runnable at once, on one worker, while another one has nothing to do.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use uthread::{Runtime, Stats};

use crate::common::{Goal, median, pin_to, table};
use crate::rig::{runtime, work};

const HERD: usize = 1_000;
const SPAWNED: usize = 10_000;
const WORK: [Duration; 2] = [Duration::ZERO, Duration::from_micros(10)];

/// What was counted between two moments.
#[derive(Clone, Copy)]
struct Counted {
    steals: u64,
    stolen: u64,
    sleeps: u64,
    enters: u64,
    signals: u64,
}

impl Counted {
    fn between(before: &Stats, after: &Stats) -> Counted {
        Counted {
            steals: after.steals - before.steals,
            stolen: after.stolen - before.stolen,
            sleeps: after.sleeps - before.sleeps,
            enters: after.ring_enters - before.ring_enters,
            signals: after.wake_signals - before.wake_signals,
        }
    }
}

/// Milliseconds that a round took, and what happened.
type Round = (f64, Counted);

/// Counts who has done its work, and notes when the last one had.
struct Finish<'a> {
    done: AtomicUsize,
    at: AtomicU64,
    start: &'a Instant,
}

impl<'a> Finish<'a> {
    fn new(start: &'a Instant) -> Finish<'a> {
        Finish { done: AtomicUsize::new(0), at: AtomicU64::new(0), start }
    }

    /// Whether this was the last of so many.
    fn one_of(&self, all: usize) -> bool {
        let last = self.done.fetch_add(1, Ordering::AcqRel) + 1 == all;
        if last {
            self.at.store(self.start.elapsed().as_nanos() as u64, Ordering::Release);
        }
        last
    }
}

/// A member of the herd: does its work once for each time that it is woken.
fn member(
    rounds: usize,
    time: Duration,
    round: &AtomicUsize,
    finish: &Finish,
    waker: &uthread::Thread,
) {
    for own in 1..=rounds {
        while round.load(Ordering::Acquire) < own {
            uthread::park();
        }
        work(time);
        if finish.one_of(HERD * own) {
            waker.unpark();
        }
    }
}

/// One thread wakes all others, several times.
fn herd(workers: usize, time: Duration, rounds: usize) -> io::Result<Vec<Round>> {
    let runtime = runtime(workers)?;
    let (start, round) = (Instant::now(), AtomicUsize::new(0));
    let finish = Finish::new(&start);
    Ok(runtime.run(|| {
        let waker = uthread::current();
        uthread::scope(|s| {
            let body = || member(rounds, time, &round, &finish, &waker);
            let herd: Vec<_> = (0..HERD).map(|_| s.spawn(body).thread().clone()).collect();
            (1..=rounds).map(|own| wake(&runtime, &herd, own, &round, &finish)).collect()
        })
    }))
}

fn wake(
    runtime: &Runtime,
    herd: &[uthread::Thread],
    own: usize,
    round: &AtomicUsize,
    finish: &Finish,
) -> Round {
    // All are parked by then, and workers without work have gone to sleep.
    uthread::sleep(Duration::from_millis(5));
    let before = runtime.stats();
    let began = finish.start.elapsed().as_nanos() as u64;
    round.store(own, Ordering::Release);
    herd.iter().for_each(uthread::Thread::unpark);
    while finish.done.load(Ordering::Acquire) < HERD * own
        || finish.at.load(Ordering::Acquire) < began
    {
        uthread::park();
    }
    let counted = Counted::between(&before, &runtime.stats());
    ((finish.at.load(Ordering::Acquire) - began) as f64 / 1e6, counted)
}

/// One thread spawns many.
fn spawned(workers: usize, time: Duration, rounds: usize) -> io::Result<Vec<Round>> {
    let runtime = runtime(workers)?;
    let round = || {
        uthread::sleep(Duration::from_millis(5));
        let (before, start) = (runtime.stats(), Instant::now());
        let finish = Finish::new(&start);
        uthread::scope(|s| {
            for _ in 0..SPAWNED {
                s.spawn(|| {
                    work(time);
                    finish.one_of(SPAWNED);
                });
            }
        });
        let counted = Counted::between(&before, &runtime.stats());
        (finish.at.into_inner() as f64 / 1e6, counted)
    };
    Ok(runtime.run(|| (0..rounds).map(|_| round()).collect()))
}

/// The median of each figure by itself.
fn typical(rounds: &[Round]) -> [f64; 6] {
    let columns: [fn(&Round) -> f64; 6] = [
        |r| r.0,
        |r| r.1.steals as f64,
        |r| r.1.stolen as f64,
        |r| r.1.sleeps as f64,
        |r| r.1.enters as f64,
        |r| r.1.signals as f64,
    ];
    columns.map(|column| median(rounds.iter().map(column).collect()))
}

/// Rounds on one worker and on two, in turns.
fn both(
    turns: usize,
    rounds: usize,
    scenario: impl Fn(usize, usize) -> io::Result<Vec<Round>>,
) -> io::Result<[Vec<Round>; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..turns {
        for workers in [1, 2] {
            pin_to(workers)?;
            // The first one of a runtime touches new memory.
            all[workers - 1].extend(scenario(workers, rounds + 1)?.into_iter().skip(1));
        }
    }
    Ok(all)
}

pub(crate) fn measure(turns: usize) -> io::Result<Vec<Goal>> {
    let header = [
        "all at once",
        "work of each [µs]",
        "workers",
        "until the last is done [ms]",
        "worst",
        "steals",
        "stolen",
        "sleeps of workers",
        "ring enters",
        "wake signals",
    ];
    let mut rows = table(&header);
    let mut goals = Vec::new();
    for time in WORK {
        let woken = both(turns, 10, |workers, rounds| herd(workers, time, rounds))?;
        let new = both(turns, 2, |workers, rounds| spawned(workers, time, rounds))?;
        for (name, all) in [("1,000 woken", woken), ("10,000 spawned", new)] {
            for (rounds, workers) in all.iter().zip(["1", "2"]) {
                let typical = typical(rounds);
                let worst = rounds.iter().map(|round| round.0).fold(0.0, f64::max);
                let us = time.as_micros().to_string();
                let mut row = vec![name.to_owned(), us, workers.to_owned()];
                row.extend([format!("{:.2}", typical[0]), format!("{worst:.2}")]);
                row.extend(typical[1..].iter().map(|count| format!("{count:.0}")));
                rows.add_row(row);
            }
            let [one, two] = all.map(|rounds| typical(&rounds)[0]);
            let (most, what) = if time.is_zero() { (1.5, "idle") } else { (0.65, "busy") };
            goals.push(Goal {
                text: format!(
                    "{name} at once, {what} ones, take two workers at most {most} of one's time: {:.2}",
                    two / one
                ),
                met: two <= most * one,
            });
        }
    }
    println!("{rows}\n");
    Ok(goals)
}
