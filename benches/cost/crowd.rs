//! Threads that wait together: the workload of every figure that depends on the number of threads.
//!
//! **Problem.** What creation, switches and wake-ups cost among `n` threads means something only if all
//! `n` exist at the same time. Threads that end by themselves do not see to that: when the one that
//! spawns them is interrupted, those before run to their end.
//!
//! **Choice.** The members of a crowd park until the conductor, the thread that spawned them, gives an
//! order. They carry it out, report, and park again. So a crowd is measured while it is complete, and
//! one crowd serves for many measurements.

use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use crate::limits::{Room, map_lines};
use crate::measure::Timed;
use crate::threads::Threads;

/// An empty vector whose memory is resident: filling it touches no new page.
pub(crate) fn resident<T>(capacity: usize) -> Vec<T> {
    let mut vector = Vec::with_capacity(capacity);
    vector.spare_capacity_mut().fill_with(MaybeUninit::zeroed);
    black_box(vector)
}

pub(crate) struct Crowd<T: Threads> {
    square: Arc<Square<T>>,
    members: Vec<T::JoinHandle>,
}

impl<T: Threads> Crowd<T> {
    /// After so many threads it is time to see how many mappings one takes.
    const PROBE: usize = 64;

    /// The calling thread is the conductor. There is room for handles of `most` members.
    pub(crate) fn new(most: usize) -> Crowd<T> {
        Crowd { square: Arc::new(Square::new()), members: resident(most) }
    }

    /// Spawns `count` members and waits until they have arrived; fewer than that if there is an error.
    pub(crate) fn gather(&mut self, count: usize) -> (Timed, io::Result<()>) {
        let (before, start) = (self.members.len(), Instant::now());
        self.square.expected.store(before + count, SeqCst);
        self.square.reports.store(before, SeqCst);
        let complete = (0..count).try_for_each(|_| {
            let square = self.square.clone();
            self.members.push(T::spawn(move || square.visit())?);
            Ok(())
        });
        self.square.expected.store(self.members.len(), SeqCst);
        self.square.await_reports();
        let operations = self.members.len() - before;
        (Timed { operations, elapsed: start.elapsed() }, complete)
    }

    /// The same, for as many members as there is room for, which is narrowed where the kernel's map of
    /// the process would become full, or where a thread is refused. Looking at the map is not timed.
    pub(crate) fn gather_within(&mut self, room: &mut Room) -> io::Result<Timed> {
        let lines = map_lines()?;
        let (mut timed, complete) = self.gather(room.threads.min(Crowd::<T>::PROBE));
        complete?;
        room.narrow_to_mappings(lines, map_lines()?, timed.operations)?;
        let (others, complete) = self.gather(room.threads.saturating_sub(timed.operations));
        timed.operations += others.operations;
        timed.elapsed += others.elapsed;
        if let Err(error) = complete {
            room.narrow(timed.operations, error);
        }
        Ok(timed)
    }

    /// Sees all members off; the time that took.
    pub(crate) fn disperse(&mut self) -> Duration {
        let start = Instant::now();
        self.give(Order::Leave);
        self.members.drain(..).for_each(T::join);
        start.elapsed()
    }

    /// Wakes all members, who park again at once; at least so many wake-ups.
    pub(crate) fn wake(&self, wakes: usize) -> Timed {
        let rounds = wakes.div_ceil(self.members.len());
        let start = Instant::now();
        for _ in 0..rounds {
            self.give(Order::Report);
            self.square.await_reports();
        }
        Timed { operations: rounds * self.members.len(), elapsed: start.elapsed() }
    }

    /// Lets all yield in turns, the conductor among them; about so many yields. They are counted, since
    /// not every scheduler gives each thread the same number of turns. The clock runs only while all of
    /// them yield.
    pub(crate) fn yields(&self, yields: usize) -> Timed {
        let laps = yields.div_ceil(self.members.len() + 1);
        let square = &*self.square;
        square.turns.store(0, Relaxed);
        square.phase.store(LINE_UP, Relaxed);
        self.give(Order::Yield);
        square.await_reports();
        square.reports.store(0, SeqCst);

        square.phase.store(TIMED, Relaxed);
        let start = Instant::now();
        (0..laps).for_each(|_| T::yield_now());
        let elapsed = start.elapsed();
        square.phase.store(OVER, Release);

        square.await_reports();
        Timed { operations: laps + square.turns.load(Relaxed), elapsed }
    }

    fn give(&self, order: Order) {
        let square = &*self.square;
        square.reports.store(0, SeqCst);
        let number = Order::ALL.iter().position(|other| *other == order).expect("it is there");
        let given = square.given.load(Relaxed) / Order::ALL.len();
        square.given.store((given + 1) * Order::ALL.len() + number, Release);
        self.members.iter().for_each(|member| T::unpark(T::thread(member)));
    }
}

/// What members are told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Report,
    Yield,
    Leave,
}

impl Order {
    const ALL: [Order; 3] = [Order::Report, Order::Yield, Order::Leave];
}

/// The phases of [`Order::Yield`]: members come, have their turns counted, and are done.
const LINE_UP: usize = 0;
const TIMED: usize = 1;
const OVER: usize = 2;

/// Where members and conductor meet.
struct Square<T: Threads> {
    conductor: T::Thread,
    /// The number of orders so far, times that of their kinds, plus the last one's kind.
    given: AtomicUsize,
    /// How many members are to report, and have. Either side writes one and then reads the other, in
    /// one order for all (`SeqCst`): whoever comes last sees that nobody is missing.
    expected: AtomicUsize,
    reports: AtomicUsize,
    phase: AtomicUsize,
    turns: AtomicUsize,
}

impl<T: Threads> Square<T> {
    fn new() -> Square<T> {
        Square {
            conductor: T::current(),
            given: 0.into(),
            expected: 0.into(),
            reports: 0.into(),
            phase: LINE_UP.into(),
            turns: 0.into(),
        }
    }

    /// The body of a member.
    fn visit(&self) {
        let mut given = self.given.load(Acquire);
        self.report();
        loop {
            given = self.await_order(given);
            match Order::ALL[given % Order::ALL.len()] {
                Order::Report => self.report(),
                Order::Yield => {
                    self.report();
                    self.take_turns();
                    self.report();
                }
                Order::Leave => break,
            }
        }
    }

    fn await_order(&self, last: usize) -> usize {
        loop {
            match self.given.load(Acquire) {
                given if given != last => return given,
                _ => T::park(),
            }
        }
    }

    fn take_turns(&self) {
        let mut turns = 0;
        loop {
            match self.phase.load(Acquire) {
                OVER => break,
                phase => turns += usize::from(phase == TIMED),
            }
            T::yield_now();
        }
        self.turns.fetch_add(turns, Relaxed);
    }

    fn report(&self) {
        if self.reports.fetch_add(1, SeqCst) + 1 == self.expected.load(SeqCst) {
            T::unpark(&self.conductor);
        }
    }

    fn await_reports(&self) {
        while self.reports.load(SeqCst) < self.expected.load(SeqCst) {
            T::park();
        }
    }
}
