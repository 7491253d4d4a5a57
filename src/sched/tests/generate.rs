//! Random programs.

use proptest::prelude::*;

use super::program::{Command, Program, Script, Step};
use crate::sched::{Cap, GroupId, Policy};

/// Times are given in parts of a slice of that many nanoseconds.
const SLICE: u64 = 1_000_000;

/// Groups that programs use.
const GROUPS: usize = 6;

fn group() -> impl Strategy<Value = GroupId> {
    (0..GROUPS).prop_map(GroupId::new)
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(100), Just(1000), Just(10_000), 1_u32..=10_000]
}

fn latency() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 1 => 0..2 * SLICE]
}

fn cap() -> impl Strategy<Value = Option<Cap>> {
    let some = (SLICE / 4..8 * SLICE, 3 * SLICE..12 * SLICE);
    prop_oneof![3 => Just(None), 1 => some.prop_map(|(quota, period)| Some(Cap { quota, period }))]
}

fn policy() -> impl Strategy<Value = Policy> {
    (weight(), latency(), cap()).prop_map(|(weight, latency, cap)| Policy { weight, latency, cap })
}

fn uncapped() -> impl Strategy<Value = Policy> {
    (weight(), latency()).prop_map(|(weight, latency)| Policy { weight, latency, cap: None })
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![2 => SLICE / 50..SLICE / 2, 1 => SLICE / 2..3 * SLICE]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => time().prop_map(Step::Compute),
        3 => time().prop_map(Step::Sleep),
        2 => Just(Step::Yield),
        1 => Just(Step::Park),
        2 => (0_usize..20).prop_map(Step::Wake),
        1 => (group(), time()).prop_map(|(group, time)| Step::Spawn(group, time)),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let some = (prop::collection::vec(step(), 1..6), time(), 1_usize..12);
    prop_oneof![
        3 => Just(Script::hog()),
        2 => (time(), time()).prop_map(|(compute, sleep)| Script::bursts(compute, sleep)),
        1 => time().prop_map(|time| Script::forever(vec![Step::Compute(time), Step::Yield])),
        3 => some.prop_map(|(mut steps, time, rounds)| {
            steps.push(Step::Compute(time));
            Script { steps, rounds }
        }),
    ]
}

fn add(workers: usize) -> impl Strategy<Value = Command> {
    let movable = prop_oneof![9 => Just(true), 1 => Just(false)];
    (group(), script(), 1_usize..5, 0..workers, movable).prop_map(
        |(group, script, count, worker, movable)| Command::Add {
            group,
            script,
            count,
            worker,
            movable,
        },
    )
}

fn command(workers: usize) -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => add(workers),
        2 => (group(), policy()).prop_map(|(group, policy)| Command::SetPolicy(group, policy)),
        1 => group().prop_map(Command::Remove),
        1 => (1..workers.max(2)).prop_map(move |w| Command::Pause(w % workers)),
        1 => (1..workers.max(2)).prop_map(move |w| Command::Resume(w % workers)),
        1 => (0..workers).prop_map(Command::Relieve),
    ]
}

/// Programs in which everything happens, in so many slices.
pub(crate) fn programs(workers: usize, slices: u64) -> impl Strategy<Value = Program> {
    let length = slices * SLICE;
    let policies = prop::collection::vec(policy(), GROUPS);
    let threads = prop::collection::vec(add(workers), 1..8);
    let commands = prop::collection::vec((0..length, command(workers)), 0..8);
    (policies, threads, commands, 0..=SLICE / 4, any::<u64>()).prop_map(
        move |(policies, threads, commands, overshoot, seed)| {
            let mut program = Program { overshoot, seed, ..Program::new(workers, length) };
            for (group, policy) in policies.into_iter().enumerate() {
                program = program.group(group, policy);
            }
            program.commands.extend(threads.into_iter().map(|add| (0, add)));
            program.commands.extend(commands);
            // A worker that rests cannot run what is bound to it, nor can the only one rest.
            let is_bound = |c: &Command| matches!(c, Command::Add { movable: false, .. });
            let bound = program.commands.iter().any(|(_, c)| is_bound(c));
            if bound || workers == 1 {
                program.commands.retain(|(_, c)| !matches!(c, Command::Pause(_)));
            }
            program
        },
    )
}

/// Programs in which each of some groups has work for all workers all the time, and others come and go.
pub(crate) fn busy_programs(workers: usize, slices: u64) -> impl Strategy<Value = Program> {
    let length = slices * SLICE;
    let busy = prop::collection::vec(uncapped(), 2..GROUPS);
    let others = prop::collection::vec((uncapped(), time(), time()), 0..3);
    (busy, others, 0..=SLICE / 4, any::<u64>()).prop_map(move |(busy, others, overshoot, seed)| {
        let mut program = Program { overshoot, seed, ..Program::new(workers, length) };
        let count = busy.len();
        for (group, policy) in busy.into_iter().enumerate() {
            let threads = workers * 2;
            program = program.group(group, policy).threads_at(group, threads, Script::hog(), group);
        }
        for (i, (policy, compute, sleep)) in others.into_iter().enumerate() {
            let script = Script::bursts(compute, sleep);
            program = program.group(count + i, policy).threads_at(count + i, 1, script, i);
        }
        program
    })
}
