//! The real runtime keeps the scheduler's promises: it plays the programs of the simulation, and what it records is
//! checked as the simulation's traces are.
//!
//! Nobody can say beforehand how late a busy machine is. So that is taken from the recording itself: the longest
//! turn for which somebody waited tells by how much interrupts were late, and the promises hold for that.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::sched::tests::checker::{Terms, check};
use crate::sched::tests::generate::programs;
use crate::sched::tests::program::{Command, Program, Script, Step};
use crate::sched::trace::{Event, What};
use crate::sched::{Cap, GroupId, Groups, Policy};
use crate::{Builder, Group, Runtime, Thread, scope};

/// How long an idle worker may take to find what there is, on a machine that is never late.
const SEARCH: u64 = 5_000_000;

/// How much the time that was decided about may differ from the recorded one, on such a machine.
const SKEW: u64 = 100_000;

/// What the threads of a program share.
struct Stage {
    groups: Vec<Group>,
    /// In the order of their creation.
    threads: Mutex<Vec<Thread>>,
    /// Threads of the group end.
    removed: Vec<AtomicBool>,
    over: AtomicBool,
}

impl Stage {
    fn new(program: &Program) -> Stage {
        let ids = program.commands.iter().map(|(_, command)| match command {
            Command::SetPolicy(group, _) | Command::Add { group, .. } => group.index(),
            _ => 0,
        });
        let count = ids.max().unwrap_or(0).max(5) + 1;
        let group = |_| Group::builder().name("played").build().unwrap();
        Stage {
            groups: (0..count).map(group).collect(),
            threads: Mutex::default(),
            removed: (0..count).map(|_| AtomicBool::new(false)).collect(),
            over: AtomicBool::new(false),
        }
    }

    fn is_over(&self, group: GroupId) -> bool {
        self.over.load(Relaxed) || self.removed[group.index()].load(Relaxed)
    }

    fn play(&self, group: GroupId, script: &Script) {
        let steps = (0..).map_while(|number| script.step(number));
        for step in steps {
            match step {
                Step::Compute(time) => self.compute(group, time),
                Step::Sleep(time) => crate::sleep(Duration::from_nanos(time)),
                Step::Yield => crate::yield_now(),
                Step::Park => crate::park(),
                Step::Wake(other) => {
                    let threads = self.threads.lock().unwrap();
                    threads[other % threads.len()].unpark();
                }
                Step::Spawn(group, time) => {
                    let group = &self.groups[group.index()];
                    // Not waited for: the runtime is, at the end.
                    let _ = Builder::new().group(group).spawn(move || spin(time)).unwrap();
                }
            }
            if self.is_over(group) {
                return;
            }
        }
    }

    fn compute(&self, group: GroupId, time: u64) {
        let began = Instant::now();
        while (began.elapsed().as_nanos() as u64) < time && !self.is_over(group) {
            std::hint::spin_loop();
        }
    }

    fn set_policy(&self, group: GroupId, policy: Policy) {
        let group = &self.groups[group.index()];
        group.set_weight(policy.weight);
        let time = Duration::from_nanos;
        group.set_cap(policy.cap.map(|Cap { quota, period }| (time(quota), time(period))));
    }
}

fn spin(nanoseconds: u64) {
    let began = Instant::now();
    while (began.elapsed().as_nanos() as u64) < nanoseconds {
        std::hint::spin_loop();
    }
}

/// Plays a program, without what real runtimes cannot do: workers that pause, and threads that are bound to one.
fn record(program: &Program) -> (Vec<Event>, u64) {
    let slice = Duration::from_nanos(program.slice);
    let builder = Runtime::builder().workers(program.workers).slice(slice);
    let runtime = builder.tape(1 << 20).build().unwrap();
    let stage = Stage::new(program);
    runtime.run(|| {
        let began = Instant::now();
        let mut commands: Vec<_> = program.commands.iter().collect();
        commands.sort_by_key(|(at, _)| *at);
        let sleep_until = |at: u64| {
            let left = Duration::from_nanos(at).saturating_sub(began.elapsed());
            crate::sleep(left);
        };
        scope(|s| {
            for (at, command) in commands {
                sleep_until(*at);
                match command {
                    Command::SetPolicy(group, policy) => stage.set_policy(*group, *policy),
                    Command::Add { group, script, count, .. } => {
                        for _ in 0..*count {
                            let (stage, group) = (&stage, *group);
                            let builder = Builder::new().group(&stage.groups[group.index()]);
                            let body = move || stage.play(group, script);
                            let thread = builder.spawn_scoped(s, body).unwrap();
                            stage.threads.lock().unwrap().push(thread.thread().clone());
                        }
                    }
                    Command::Remove(group) => stage.removed[group.index()].store(true, Relaxed),
                    Command::Pause(_) | Command::Resume(_) => {}
                }
            }
            sleep_until(program.length);
            stage.over.store(true, Relaxed);
            // They may wait for a long time to get what is left of their quotas.
            stage.groups.iter().for_each(|g| g.set_cap(None));
            stage.threads.lock().unwrap().iter().for_each(Thread::unpark);
        });
    });
    runtime.recording().expect("there was enough room")
}

/// By how much, at the most, a worker was late to interrupt a thread for which others waited there, or to begin with the
/// next one.
fn overshoot(program: &Program, trace: &[Event]) -> u64 {
    let mut group_of = std::collections::HashMap::new();
    let mut throttled = Groups::NONE;
    // By worker: threads that wait there and may run, and since when no other one began.
    let mut waiting = vec![Vec::<GroupId>::new(); program.workers];
    let mut since = vec![None; program.workers];
    let mut longest = 0;
    for Event { at, what } in trace {
        match *what {
            What::Spawn { worker, thread, group, .. } => {
                group_of.insert(thread, group);
                waiting[worker].push(group);
            }
            What::Wake { worker, thread } | What::Put { worker, thread } => {
                waiting[worker].push(group_of[&thread]);
            }
            What::Take { worker, thread, .. } => {
                let group = group_of[&thread];
                let place = waiting[worker].iter().position(|g| *g == group).expect("it waits");
                waiting[worker].swap_remove(place);
            }
            What::SwitchIn { worker, .. } => {
                longest = longest.max(since[worker].take().map_or(0, |since| at - since));
            }
            What::SwitchOut { worker, thread, why } if why.stays_runnable() => {
                waiting[worker].push(group_of[&thread]);
            }
            What::Throttled { group } => throttled.insert(group),
            What::Released { group } => throttled.remove(group),
            _ => {}
        }
        for (waiting, since) in waiting.iter().zip(&mut since) {
            let some = waiting.iter().any(|group| !throttled.contains(*group));
            *since = some.then(|| since.unwrap_or(*at));
        }
    }
    longest.saturating_sub(program.slice)
}

/// How often a program is run whose promises are broken while the machine takes the workers' processors away.
const ATTEMPTS: usize = 5;

/// The trace of a program, which keeps all promises.
///
/// What the machine takes is allowed for as far as it is known, on average. On one that takes processors away for longer
/// than slices, a program may be out of luck; but not each time.
fn verified(program: &Program) -> Vec<Event> {
    for attempt in 1.. {
        let (trace, skew) = record(program);
        let overshoot = overshoot(program, &trace);
        let (workers, slice) = (program.workers, program.slice);
        let terms = Terms {
            workers,
            slice,
            overshoot: overshoot + skew,
            search: SEARCH + overshoot + skew,
            skew: SKEW + overshoot + 2 * workers as u64 * skew,
        };
        let end = trace.last().expect("something happened").at;
        let violations = check(terms, &trace, end);
        if violations.is_empty() {
            return trace;
        }
        let some = violations.iter().take(5).collect::<Vec<_>>();
        assert!(
            skew > slice && attempt < ATTEMPTS,
            "{} violations of {terms:?} in {program:?}: {some:#?}",
            violations.len()
        );
    }
    unreachable!("the last attempt returns or panics")
}

#[test]
fn groups_of_hogs_get_their_shares() {
    for workers in [1, 2, 4] {
        let mut program = Program::new(workers, 200_000_000);
        for (group, weight) in [100, 200, 700].into_iter().enumerate() {
            let policy = Policy { weight, ..Policy::DEFAULT };
            program = program.group(group, policy).threads(group, 2 * workers, Script::hog());
        }
        let trace = verified(&program);
        assert!(trace.iter().any(|event| matches!(event.what, What::Choose { .. })));
    }
}

#[test]
fn a_lone_thread_that_yields_keeps_its_share() {
    let yields = Script::forever(vec![Step::Compute(10_000), Step::Yield]);
    let heavy = Policy { weight: 10_000, ..Policy::DEFAULT };
    let program = Program::new(1, 100_000_000).group(0, heavy).threads(0, 1, yields).threads(
        1,
        1,
        Script::hog(),
    );
    verified(&program);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 8 },
        // It would not happen again in the same way.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs_keep_all_promises(
        program in (1..4_usize).prop_flat_map(|workers| programs(workers, 50)),
    ) {
        verified(&program);
    }
}
