//! What both kinds of threads are made to do: yield, hand a turn to and fro, be spawned and joined.
//!
//! None of them blocks in the kernel on the green side: a lock or a barrier of `std` held across a
//! switch would stop the worker, and with it the threads that would release it. So they start when an
//! atomic says so, and yield until then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::measure::Timed;
use crate::threads::Threads;

/// Sees who runs, turn after turn, and counts how often that changes.
pub(crate) struct Observer {
    last: AtomicUsize,
    turns: AtomicUsize,
    changes: AtomicUsize,
}

impl Observer {
    pub(crate) fn new() -> Arc<Observer> {
        let (last, turns, changes) = (usize::MAX.into(), 0.into(), 0.into());
        Arc::new(Observer { last, turns, changes })
    }

    pub(crate) fn saw(&self, runs: usize) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        if self.last.swap(runs, Ordering::Relaxed) != runs {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The share of turns that brought a change.
    pub(crate) fn share(&self) -> f64 {
        self.changes.load(Ordering::Relaxed) as f64 / self.turns.load(Ordering::Relaxed) as f64
    }
}

/// Spawns `threads` threads that yield `yields` times in all; `on_turn` is called between yields
/// with the number of the thread.
pub(crate) fn yielding<T: Threads>(
    threads: usize,
    yields: usize,
    on_turn: impl Fn(usize) + Clone + Send + 'static,
) -> Timed {
    let each = yields.div_ceil(threads);
    let race = Arc::new(Race::<T>::new(threads));
    let runner = |number| {
        let (race, on_turn) = (race.clone(), on_turn.clone());
        T::spawn(move || {
            race.line_up();
            for _ in 0..each {
                on_turn(number);
                T::yield_now();
            }
            race.finish();
        })
    };
    let handles: Vec<_> = (0..threads).map(|number| runner(number).expect("spawn")).collect();
    race.await_end();
    handles.iter().for_each(|handle| T::unpark(T::thread(handle)));
    handles.into_iter().for_each(T::join);
    Timed { operations: threads * each, elapsed: race.elapsed() }
}

/// Starts when the last runner has lined up, ends when the last one is done. Those done before wait:
/// the exit of a thread of `std` costs many yields, and would be timed with the others.
struct Race<T: Threads> {
    starter: T::Thread,
    runners: usize,
    lined_up: AtomicUsize,
    running: AtomicUsize,
    start: OnceLock<Instant>,
    end: OnceLock<Instant>,
}

impl<T: Threads> Race<T> {
    /// The calling thread is the one to [`Race::await_end`].
    fn new(runners: usize) -> Race<T> {
        let (start, end) = (OnceLock::new(), OnceLock::new());
        let (lined_up, running) = (0.into(), runners.into());
        Race { starter: T::current(), runners, lined_up, running, start, end }
    }

    fn line_up(&self) {
        if self.lined_up.fetch_add(1, Ordering::AcqRel) + 1 == self.runners {
            self.start.set(Instant::now()).expect("one is the last");
        }
        while self.start.get().is_none() {
            T::yield_now();
        }
    }

    fn finish(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end.set(Instant::now()).expect("one is the last");
            T::unpark(&self.starter);
        }
        self.await_end();
    }

    fn await_end(&self) {
        while self.end.get().is_none() {
            T::park();
        }
    }

    fn elapsed(&self) -> Duration {
        let (start, end) = (self.start.get(), self.end.get());
        *end.expect("all are done") - *start.expect("all have run")
    }
}

/// The body of a player.
pub(crate) type Player = Box<dyn FnOnce() + Send>;

/// Two threads hand a turn to and fro, each parking until it is its own. `launch` starts both
/// players and returns when they are done; `on_turn` is called at each turn.
pub(crate) fn park_ping_pong<T: Threads>(
    round_trips: usize,
    launch: impl FnOnce(Player, Player),
    on_turn: impl Fn() + Clone + Send + 'static,
) -> Timed {
    let table = Arc::new(Table::<T>::new());
    let opener = {
        let (table, on_turn) = (table.clone(), on_turn.clone());
        Box::new(move || table.open(round_trips, on_turn))
    };
    let answerer = {
        let table = table.clone();
        Box::new(move || table.answer(round_trips, on_turn))
    };
    launch(opener, answerer);
    Timed { operations: round_trips, elapsed: *table.elapsed.get().expect("the game is over") }
}

const OPENER: usize = 0;
const ANSWERER: usize = 1;

struct Table<T: Threads> {
    players: [OnceLock<T::Thread>; 2],
    turn: AtomicUsize,
    elapsed: OnceLock<Duration>,
}

impl<T: Threads> Table<T> {
    fn new() -> Table<T> {
        let players = [OnceLock::new(), OnceLock::new()];
        Table { players, turn: OPENER.into(), elapsed: OnceLock::new() }
    }

    /// Takes the seat `me` and waits for the player opposite.
    fn sit_down(&self, me: usize) -> &T::Thread {
        assert!(self.players[me].set(T::current()).is_ok(), "the seat is free");
        loop {
            match self.players[1 - me].get() {
                Some(opposite) => return opposite,
                None => T::yield_now(),
            }
        }
    }

    fn hand_over(&self, me: usize, opposite: &T::Thread) {
        self.turn.store(1 - me, Ordering::Release);
        T::unpark(opposite);
    }

    fn await_turn(&self, me: usize) {
        while self.turn.load(Ordering::Acquire) != me {
            T::park();
        }
    }

    fn open(&self, round_trips: usize, on_turn: impl Fn()) {
        let opposite = self.sit_down(OPENER);
        let round_trip = || {
            on_turn();
            self.hand_over(OPENER, opposite);
            self.await_turn(OPENER);
        };
        // One round trip waits for the other player's start and is not counted.
        round_trip();
        let start = Instant::now();
        (0..round_trips).for_each(|_| round_trip());
        self.elapsed.set(start.elapsed()).expect("one game a table");
    }

    fn answer(&self, round_trips: usize, on_turn: impl Fn()) {
        let opposite = self.sit_down(ANSWERER);
        for _ in 0..=round_trips {
            self.await_turn(ANSWERER);
            on_turn();
            self.hand_over(ANSWERER, opposite);
        }
    }
}

/// Spawns and joins at least `spawns` threads that do next to nothing, `batch` alive at a time.
pub(crate) fn spawning<T: Threads>(batch: usize, spawns: usize) -> Timed {
    let batches = spawns.div_ceil(batch);
    let ran = Arc::new(AtomicUsize::new(0));
    let spawn = |_| {
        let ran = ran.clone();
        T::spawn(move || _ = ran.fetch_add(1, Ordering::Relaxed)).expect("spawn")
    };
    let mut handles = Vec::with_capacity(batch);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..batch).map(spawn));
        handles.drain(..).for_each(T::join);
    }
    let elapsed = start.elapsed();
    assert_eq!(ran.load(Ordering::Relaxed), batches * batch, "every thread ran once");
    Timed { operations: batches * batch, elapsed }
}
