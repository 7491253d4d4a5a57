//! Checks a trace, and nothing but a trace: it could have been recorded anywhere.

use std::collections::VecDeque;

use super::accounts::Accounts;
use crate::sched::trace::{Event, What, Why};
use crate::sched::{GroupId, MOST_GROUPS};

/// What is promised. Times are in nanoseconds; "late" is a slice and an overshoot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// A thread's state changes as in this table, and only on the worker that has it: new → queued →
    /// taken out → running → queued, waiting or ended; waiting → queued; taken out → queued elsewhere, or on a
    /// helper, if it may move.
    LegalStates,
    /// A thread runs on one worker at a time, and a worker runs one thread at a time.
    OneAtATime,
    /// Fresh threads of a group on a worker run in the order in which they were queued there, and so do
    /// those that have used up their slices. Thieves take both in that order, and who is relieved for a helper comes
    /// after all those in front that could go on there.
    FirstInFirstOut,
    /// A thread that is queued runs before its group was served for `2 * (n + 2) * late`, `n` being the greatest
    /// number of the group's threads that were runnable meanwhile; on several workers, that many times
    /// [`Terms::patience`].
    EverybodyRuns,
    /// A group with threads that are queued, and not throttled, is served before it was entitled to
    /// [`Terms::lag`] since it was served last, was released or became runnable. It is entitled to its weight's
    /// part of *one* worker; if a group leaves meanwhile, its own lag, up to that bound, becomes that of others.
    /// Together with [`Property::EverybodyRuns`]: no wake-up is lost, nobody starves.
    GroupsAreServed,
    /// While a worker has more than one thread queued that may move and is not throttled, no worker is
    /// idle for longer than four searches. (A single one is likely to run before a thief has come.)
    NoIdleWorker,
    /// Of two groups, one of which has threads for all workers all the time, the other one never gets
    /// more than its share in comparison: for all intervals, `service of other / its weight - service of
    /// busy / its weight <= lag * (1 / weight of other + 1 / weight of busy)`. If both are busy, that
    /// holds in both directions: shares follow weights. If one sleeps in between, it gains nothing by that.
    FairShares,
    /// A group uses no more than its quota in any row of periods, but for once `2 * workers * late`.
    /// What was too much is missing later.
    Caps,
    /// No group is throttled that has not used up its quota, nor for longer than until its debt is paid, or, if it is
    /// not runnable then, until it is, and `late + search` beyond.
    ThrottledForAReason,
    /// No worker chooses a group that is throttled; but one that has chosen it before goes on.
    ThrottledRest,
    /// A group's virtual time never decreases, unless something was said about it.
    VirtualTime,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) property: Property,
    pub(crate) at: u64,
    pub(crate) what: String,
}

/// What the promises depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) workers: usize,
    pub(crate) slice: u64,
    /// How much later than planned a worker interrupts a thread.
    pub(crate) overshoot: u64,
    /// How long a worker takes to wake up, or to find something to run.
    pub(crate) search: u64,
    /// How much later than decided something may be recorded.
    pub(crate) skew: u64,
}

impl Terms {
    /// The longest turn of a thread while others wait.
    pub(crate) fn late(&self) -> u64 {
        self.slice + self.overshoot
    }

    /// A group may be served elsewhere only, by all other workers, for so many slices.
    fn patience(&self) -> u64 {
        if self.workers == 1 { 1 } else { 18 * self.workers as u64 }
    }

    /// How far a group is ahead of its share, and how far it is behind, together, if so many groups are
    /// runnable at a time.
    ///
    /// A single worker serves nobody who is ahead, for one turn at a time, and sees to it that nobody is behind by
    /// more than that. With several, a group may be ahead by a turn of each, if those do not know of each
    /// other, and another one is behind by no more than `workers + groups` turns, since more is forgotten: that
    /// is reached only by groups that have too few threads to use their shares. Threads that are `bound` to
    /// a worker cannot use shares that are worth more than that: a group is owed four times as much
    /// before that is forgotten.
    pub(crate) fn lag(&self, groups: usize, bound: bool) -> u64 {
        if self.workers == 1 {
            return 2 * self.late();
        }
        let turns = (2 * self.workers + groups) * if bound { 4 } else { 1 };
        turns as u64 * (self.slice + self.overshoot.max(self.slice / 4))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Queued(usize),
    /// Taken out of that worker's queue, to run there.
    Next(usize),
    /// Taken out of a queue, to be queued elsewhere.
    Moving,
    Running(usize),
    Waiting,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fresh,
    /// Interrupted in the middle of the slice: these go on in any order.
    Interrupted,
    Spent,
}

/// Who takes a thread out of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Worker,
    Thief,
    /// It is to go on on a helper.
    Relief,
}

#[derive(Debug)]
struct Thread {
    group: GroupId,
    movable: bool,
    state: State,
    level: Level,
    /// It could go on on a helper: it has not begun, or was interrupted. What it does there is not in the trace.
    resumable: bool,
    /// What its group had got when it was queued.
    served: u64,
    since: u64,
    /// The most threads of its group that were runnable since.
    crowd: usize,
}

#[derive(Debug, Default)]
struct Worker {
    started: bool,
    running: Option<usize>,
    /// The group that is served, between two turns as well.
    serving: Option<GroupId>,
    /// By group: fresh and spent threads.
    lines: Vec<[VecDeque<usize>; 2]>,
    queued: Vec<usize>,
    /// Since when threads have waited here while another worker was idle.
    vain_since: Option<u64>,
}

/// Reads a trace.
pub(crate) struct Checker {
    terms: Terms,
    threads: Vec<Option<Thread>>,
    workers: Vec<Worker>,
    accounts: Accounts,
    violations: Vec<Violation>,
}

/// The violations in a whole trace that ends then.
pub(crate) fn check(terms: Terms, trace: &[Event], end: u64) -> Vec<Violation> {
    let mut checker = Checker::new(terms);
    trace.iter().for_each(|event| checker.see(event));
    checker.finish(end)
}

impl Checker {
    pub(crate) fn new(terms: Terms) -> Checker {
        let worker =
            || Worker { lines: vec![Default::default(); MOST_GROUPS], ..Worker::default() };
        Checker {
            terms,
            threads: Vec::new(),
            workers: (0..terms.workers).map(|_| worker()).collect(),
            accounts: Accounts::new(terms),
            violations: Vec::new(),
        }
    }

    /// The next event.
    pub(crate) fn see(&mut self, event: &Event) {
        self.pass(event.at);
        let at = event.at;
        match event.what {
            What::Choose { worker, group, .. } => self.workers[worker].serving = Some(group),
            What::Rest { worker } => self.workers[worker].serving = None,
            _ => {}
        }
        match event.what {
            What::Start { worker } => self.workers[worker].started = true,
            What::Stop { worker } => self.workers[worker].started = false,
            What::Spawn { worker, thread, group, movable } => {
                if self.threads.len() <= thread {
                    self.threads.resize_with(thread + 1, || None);
                }
                if self.threads[thread].is_some() {
                    self.violated(Property::LegalStates, at, format!("{thread} exists"));
                }
                let state = State::Ended;
                let level = Level::Fresh;
                let (served, since, crowd) = (0, at, 0);
                let resumable = movable;
                self.threads[thread] =
                    Some(Thread { group, movable, state, level, resumable, served, since, crowd });
                self.runnable(group, 1, movable);
                self.enqueue(worker, thread, Level::Fresh, true);
            }
            What::Wake { worker, thread } => {
                if let Some((group, movable)) = self.expect(thread, State::Waiting, at) {
                    self.runnable(group, 1, movable);
                    self.enqueue(worker, thread, Level::Fresh, true);
                }
            }
            What::SwitchIn { worker, thread } => self.switch_in(worker, thread, at),
            What::SwitchOut { worker, thread, why } => self.switch_out(worker, thread, why, at),
            What::Take { worker, thread, moves: false } => {
                self.take(worker, thread, Taker::Worker, at);
            }
            What::Take { worker, thread, moves: true } => {
                self.take(worker, thread, Taker::Thief, at);
            }
            What::Relieve { worker, thread } => self.take(worker, thread, Taker::Relief, at),
            What::Put { worker, thread } => {
                if self.expect(thread, State::Moving, at).is_some() {
                    self.enqueue(worker, thread, Level::Fresh, false);
                }
            }
            What::Lend { thread } => {
                if let Some((group, movable)) = self.expect(thread, State::Moving, at) {
                    for t in self.threads[thread].iter_mut() {
                        (t.state, t.resumable) = (State::Waiting, false);
                    }
                    self.runnable(group, -1, movable);
                }
            }
            _ => self.accounts.see(event, &mut self.violations),
        }
        self.look_for_idle_workers(at);
    }

    /// The trace ends then.
    pub(crate) fn finish(mut self, at: u64) -> Vec<Violation> {
        self.pass(at);
        self.look_for_idle_workers(at);
        for number in 0..self.threads.len() {
            if matches!(&self.threads[number], Some(Thread { state: State::Queued(_), .. })) {
                self.check_wait(number, at);
            }
        }
        self.violations
    }

    fn pass(&mut self, at: u64) {
        let groups = self.workers.iter().filter_map(|w| w.serving);
        self.accounts.pass(at, groups, &mut self.violations);
    }

    fn violated(&mut self, property: Property, at: u64, what: String) {
        self.violations.push(Violation { property, at, what });
    }

    /// The group of a thread that is to be in that state, and whether it may move.
    fn expect(&mut self, thread: usize, state: State, at: u64) -> Option<(GroupId, bool)> {
        let found = self.threads.get(thread).and_then(|t| t.as_ref());
        match found {
            Some(t) if t.state == state => Some((t.group, t.movable)),
            _ => {
                let is = found.map(|t| t.state);
                let what = format!("{thread} is {is:?}, not {state:?}");
                let is_running = matches!(is, Some(State::Running(_)));
                let twice = is_running && !matches!(state, State::Running(_));
                let property = if twice { Property::OneAtATime } else { Property::LegalStates };
                self.violated(property, at, what);
                None
            }
        }
    }

    fn enqueue(&mut self, worker: usize, number: usize, level: Level, begins: bool) {
        let Some(thread) = &mut self.threads[number] else { return };
        (thread.state, thread.level) = (State::Queued(worker), level);
        if begins {
            let state = self.accounts.group(thread.group);
            thread.served = state.served;
            thread.crowd = state.runnable;
            thread.since = self.accounts.now();
        }
        let lines = &mut self.workers[worker].lines[thread.group.index()];
        match level {
            Level::Fresh => lines[0].push_back(number),
            Level::Interrupted => {}
            Level::Spent => lines[1].push_back(number),
        }
        self.workers[worker].queued.push(number);
    }

    fn dequeue(&mut self, worker: usize, number: usize, taker: Taker, at: u64) {
        let Some(thread) = &self.threads[number] else { return };
        let line = match thread.level {
            Level::Fresh => Some(0),
            Level::Interrupted => None,
            Level::Spent => Some(1),
        };
        self.workers[worker].queued.retain(|n| *n != number);
        let Some(line) = line else { return };
        let line = &mut self.workers[worker].lines[thread.group.index()][line];
        let threads = &self.threads;
        let could_go = |t: &Thread| match taker {
            Taker::Worker => true,
            Taker::Thief => t.movable,
            Taker::Relief => t.resumable,
        };
        let comes_first = |n: &&usize| **n == number || threads[**n].as_ref().is_some_and(could_go);
        let first = line.iter().find(comes_first).copied();
        line.retain(|n| *n != number);
        if first != Some(number) {
            let what = format!("{number} came before {first:?}");
            self.violated(Property::FirstInFirstOut, at, what);
        }
    }

    fn runnable(&mut self, group: GroupId, change: isize, movable: bool) {
        self.accounts.runnable(group, change, movable);
        let crowd = self.accounts.group(group).runnable;
        if change > 0 {
            let same = |t: &&mut Thread| t.group == group;
            self.threads
                .iter_mut()
                .flatten()
                .filter(same)
                .for_each(|t| t.crowd = t.crowd.max(crowd));
        }
    }

    fn take(&mut self, worker: usize, thread: usize, taker: Taker, at: u64) {
        let Some((_, movable)) = self.expect(thread, State::Queued(worker), at) else { return };
        let moves = taker != Taker::Worker;
        if moves && !movable {
            self.violated(Property::LegalStates, at, format!("{thread} must not move"));
        }
        if !moves {
            self.check_wait(thread, at);
        }
        self.dequeue(worker, thread, taker, at);
        let state = if moves { State::Moving } else { State::Next(worker) };
        self.threads[thread].iter_mut().for_each(|t| t.state = state);
    }

    fn switch_in(&mut self, worker: usize, thread: usize, at: u64) {
        if let Some(other) = self.workers[worker].running {
            let what = format!("{thread} on {worker} where {other} runs");
            self.violated(Property::OneAtATime, at, what);
        }
        if self.expect(thread, State::Next(worker), at).is_none() {
            return;
        }
        self.workers[worker].running = Some(thread);
        if let Some(t) = &mut self.threads[thread] {
            t.state = State::Running(worker);
            self.workers[worker].serving = Some(t.group);
        }
    }

    fn switch_out(&mut self, worker: usize, thread: usize, why: Why, at: u64) {
        let Some((group, movable)) = self.expect(thread, State::Running(worker), at) else {
            return;
        };
        self.workers[worker].running = None;
        let interrupted = matches!(why, Why::UsedUp | Why::Interrupted);
        self.threads[thread].iter_mut().for_each(|t| t.resumable = movable && interrupted);
        match why {
            Why::Yielded => self.enqueue(worker, thread, Level::Fresh, true),
            Why::UsedUp => self.enqueue(worker, thread, Level::Spent, true),
            Why::Interrupted => self.enqueue(worker, thread, Level::Interrupted, true),
            Why::Blocked | Why::Ended => {
                let ended = why == Why::Ended;
                let state = if ended { State::Ended } else { State::Waiting };
                self.threads[thread].iter_mut().for_each(|t| t.state = state);
                self.runnable(group, -1, movable);
            }
        }
    }

    /// It has not waited for too long.
    fn check_wait(&mut self, number: usize, at: u64) {
        let Some(thread) = &self.threads[number] else { return };
        let waited = self.accounts.group(thread.group).served - thread.served;
        let turns = 2 * (thread.crowd as u64 + 2) * self.terms.patience();
        let bound = turns * self.terms.late();
        if waited > bound {
            let since = thread.since;
            let what = format!("{number} waited for {waited} of {bound}, since {since}");
            self.violated(Property::EverybodyRuns, at, what);
        }
    }

    fn look_for_idle_workers(&mut self, at: u64) {
        let some_idle = self.workers.iter().any(|w| w.started && w.running.is_none());
        let may_run = |n: &&usize| {
            let thread = self.threads[**n].as_ref();
            thread.is_some_and(|t| t.movable && !self.accounts.group(t.group).is_throttled())
        };
        let mut bad = Vec::new();
        for (i, worker) in self.workers.iter_mut().enumerate() {
            // Whatever has lasted until now is judged when it ends or goes on.
            if let Some(since) = worker.vain_since
                && at - since > 4 * self.terms.search
            {
                bad.push((i, since));
                worker.vain_since = None;
            }
            let is_rich = some_idle && worker.queued.iter().filter(may_run).nth(1).is_some();
            worker.vain_since = is_rich.then(|| worker.vain_since.unwrap_or(at));
        }
        for (worker, since) in bad {
            let what = format!("threads wait at {worker} since {since}");
            self.violated(Property::NoIdleWorker, at, what);
        }
    }
}
