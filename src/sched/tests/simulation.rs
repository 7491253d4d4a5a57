//! Workers and threads in simulated time, driven by the real policy: one event after the other, the same
//! for the same program.
//!
//! A worker obeys the protocol of the real one: when it chooses, when it interrupts, when it wakes
//! another. Times at which it looks at a running thread are late by a random part of
//! [`Program::overshoot`].

mod protocol;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Id;
use super::program::{Command, Program, Random, Script, Step};
use crate::sched::trace::{Event, What, Why};
use crate::sched::{GroupId, Groups, MOST_GROUPS, Policy, RunQueue, Shares};

/// How long a worker that has nothing to run looks around before it sleeps, or takes to wake up.
pub(super) const SEARCH: u64 = 5_000;

/// What a thread does besides computing takes so long.
const CALL: u64 = 100;

/// What is going to happen. The order of the variants has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The worker looks at what it does, unless it was told to do so at another time since.
    Look(usize, u64),
    Timer(usize, usize),
    Command(usize),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Busy,
    Searching,
    Asleep,
    Paused,
}

#[derive(Debug)]
struct Turn {
    thread: usize,
    began: u64,
    /// Up to when it was accounted for.
    counted: u64,
    /// It was due although fresh threads of its group wait, which therefore do not end it.
    protected: bool,
    late: u64,
}

#[derive(Debug)]
struct Worker {
    queue: RunQueue<Id>,
    lease: Option<(GroupId, u64)>,
    state: State,
    turn: Option<Turn>,
    /// The number of the look that is in force.
    look: u64,
    /// By group: service since the queue was told that a slice has passed.
    served: [u64; MOST_GROUPS],
    late: u64,
}

#[derive(Debug)]
struct Thread {
    group: GroupId,
    script: Script,
    step: usize,
    movable: bool,
    /// What is left of the present step's time; after it, that is done.
    left: u64,
    then: Option<Step>,
    /// Of its slice.
    used: u64,
    /// It has not begun, or was interrupted.
    resumable: bool,
    parked: bool,
    token: bool,
    /// To end as soon as it runs.
    ending: bool,
}

/// A run of a program.
pub(super) struct Simulation<'a> {
    program: &'a Program,
    now: u64,
    pub(super) shares: Shares,
    workers: Vec<Worker>,
    threads: Vec<Thread>,
    agenda: BinaryHeap<Reverse<(u64, u64, Due)>>,
    numbers: u64,
    random: Random,
    throttled: Groups,
    pub(super) trace: Vec<Event>,
}

/// What happens when that program runs.
pub(super) fn run(program: &Program) -> Vec<Event> {
    let mut simulation = Simulation::new(program);
    simulation.advance(program.length);
    simulation.trace
}

impl<'a> Simulation<'a> {
    pub(super) fn new(program: &'a Program) -> Simulation<'a> {
        let worker = || Worker {
            queue: RunQueue::new(),
            lease: None,
            state: State::Asleep,
            turn: None,
            look: 0,
            served: [0; MOST_GROUPS],
            late: 0,
        };
        let mut simulation = Simulation {
            program,
            now: 0,
            shares: Shares::new(program.workers, program.slice),
            workers: (0..program.workers).map(|_| worker()).collect(),
            threads: Vec::new(),
            agenda: BinaryHeap::new(),
            numbers: 0,
            random: Random::new(program.seed),
            throttled: Groups::NONE,
            trace: Vec::new(),
        };
        Id::forget_all();
        (0..program.workers).for_each(|worker| simulation.note(What::Start { worker }));
        for (i, (at, _)) in program.commands.iter().enumerate() {
            simulation.at(*at, Due::Command(i));
        }
        simulation
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, until: u64) {
        while let Some(Reverse((at, _, due))) = self.agenda.peek().copied() {
            if at > until {
                break;
            }
            self.agenda.pop();
            self.now = at;
            match due {
                Due::Look(worker, look) if self.workers[worker].look == look => self.look(worker),
                Due::Look(..) => {}
                Due::Timer(thread, worker) => self.wake(thread, worker),
                Due::Command(i) => self.command(&self.program.commands[i].1),
            }
        }
        self.now = until;
    }

    fn note(&mut self, what: What) {
        assert!(self.trace.len() < 1 << 20, "a run without end");
        self.trace.push(Event { at: self.now, what });
    }

    fn at(&mut self, at: u64, due: Due) {
        self.numbers += 1;
        self.agenda.push(Reverse((at.max(self.now), self.numbers, due)));
    }

    fn look_at(&mut self, worker: usize, at: u64) {
        self.workers[worker].look += 1;
        self.at(at, Due::Look(worker, self.workers[worker].look));
    }

    fn lateness(&mut self) -> u64 {
        self.random.up_to(self.program.overshoot)
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::SetPolicy(group, policy) => {
                self.shares.set_policy(self.now, *group, *policy);
                self.note(What::Weight { group: *group, policy: *policy });
                self.note_throttled();
                // It may have been released, or have got more: those who sleep look for themselves.
                (0..self.workers.len()).for_each(|w| self.rouse(w));
            }
            Command::Add { group, script, count, worker, movable } => {
                for i in 0..*count {
                    let to = if *movable { (worker + i) % self.workers.len() } else { *worker };
                    self.spawn(*group, script.clone(), to, *movable);
                }
            }
            Command::Remove(group) => {
                self.threads.iter_mut().filter(|t| t.group == *group).for_each(|t| t.ending = true);
            }
            Command::Pause(worker) => self.pause(*worker),
            Command::Relieve(worker) => self.relieve(*worker),
            Command::Resume(worker) => {
                if self.workers[*worker].state == State::Paused {
                    self.workers[*worker].state = State::Asleep;
                    self.note(What::Start { worker: *worker });
                    self.rouse(*worker);
                }
            }
        }
    }

    fn spawn(&mut self, group: GroupId, script: Script, worker: usize, movable: bool) {
        let thread = self.threads.len();
        self.threads.push(Thread {
            group,
            script,
            step: 0,
            movable,
            left: 0,
            then: None,
            used: 0,
            resumable: true,
            parked: false,
            token: false,
            ending: false,
        });
        let worker = self.live(worker);
        self.note(What::Spawn { worker, thread, group, movable });
        self.workers[worker].queue.push(group, Id(thread));
        self.attend(worker);
    }

    fn wake(&mut self, thread: usize, worker: usize) {
        let worker = self.live(worker);
        self.note(What::Wake { worker, thread });
        self.workers[worker].queue.push(self.threads[thread].group, Id(thread));
        self.attend(worker);
    }

    /// The present thread does what comes after its computation.
    fn step(&mut self, worker: usize) {
        let Some(turn) = &self.workers[worker].turn else { return };
        let number = turn.thread;
        let thread = &mut self.threads[number];
        let step = if thread.ending { None } else { thread.then.take() };
        let leave = match step {
            None if thread.ending => Some(Why::Ended),
            None => match thread.script.step(thread.step) {
                None => Some(Why::Ended),
                Some(Step::Compute(time)) => {
                    thread.left = time.max(CALL);
                    thread.step += 1;
                    None
                }
                Some(step) => {
                    (thread.left, thread.then) = (CALL, Some(step));
                    thread.step += 1;
                    None
                }
            },
            Some(Step::Yield) => Some(Why::Yielded),
            Some(Step::Sleep(time)) => {
                self.at(self.now + time.max(1), Due::Timer(number, worker));
                Some(Why::Blocked)
            }
            Some(Step::Park) => {
                thread.parked = !std::mem::take(&mut thread.token);
                thread.parked.then_some(Why::Blocked)
            }
            Some(Step::Wake(other)) => {
                let other = other % self.threads.len();
                if std::mem::take(&mut self.threads[other].parked) {
                    self.wake(other, worker);
                } else {
                    self.threads[other].token = true;
                }
                None
            }
            Some(Step::Spawn(group, time)) => {
                self.spawn(group, Script::once(vec![Step::Compute(time)]), worker, true);
                None
            }
            Some(Step::Compute(_)) => unreachable!("it is no call"),
        };
        let Some(why) = leave else { return self.arm(worker) };
        self.workers[worker].turn = None;
        self.threads[number].used = 0;
        self.threads[number].resumable = false;
        if why == Why::Yielded {
            self.workers[worker].queue.push(self.threads[number].group, Id(number));
        }
        self.note(What::SwitchOut { worker, thread: number, why });
        self.next(worker);
    }
}

/// Nothing special was said, but that.
pub(super) fn weight(weight: u32) -> Policy {
    Policy { weight, ..Policy::DEFAULT }
}
