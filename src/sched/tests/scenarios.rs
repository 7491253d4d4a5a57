//! Programs of which one thing in particular is promised, besides everything else.

use super::checker::{Property, Terms, check};
use super::program::{Command, Program, Script, Step};
use super::simulation::{SEARCH, run, weight};
use crate::sched::trace::{Event, What};
use crate::sched::{Cap, Choice, Elsewhere, GroupId, Groups, MOST_GROUPS, Policy, Shares};

const MS: u64 = 1_000_000;

fn terms(program: &Program) -> Terms {
    let &Program { workers, slice, overshoot, .. } = program;
    Terms { workers, slice, overshoot, search: SEARCH, skew: 0 }
}

/// The trace, after it was checked.
#[track_caller]
fn verified(program: &Program) -> Vec<Event> {
    let trace = run(program);
    let violations = check(terms(program), &trace, program.length);
    let some = violations.iter().take(5).collect::<Vec<_>>();
    assert!(violations.is_empty(), "{} violations: {some:#?}", violations.len());
    trace
}

/// By group: time on workers in that interval.
fn service(trace: &[Event], from: u64, to: u64) -> [u64; MOST_GROUPS] {
    let mut got = [0; MOST_GROUPS];
    let mut groups = Vec::new();
    let mut running = std::collections::HashMap::new();
    let within = |at: u64| at.clamp(from, to);
    for event in trace {
        match event.what {
            What::Spawn { thread, group, .. } => {
                groups.resize(groups.len().max(thread + 1), group);
                groups[thread] = group;
            }
            What::SwitchIn { worker, thread } => {
                running.insert(worker, (groups[thread], within(event.at)));
            }
            What::SwitchOut { worker, .. } => {
                if let Some((group, since)) = running.remove(&worker) {
                    got[group.index()] += within(event.at) - since;
                }
            }
            _ => {}
        }
    }
    running.into_values().for_each(|(group, since)| got[group.index()] += to - since);
    got
}

fn capped(quota: u64, period: u64) -> Policy {
    Policy { cap: Some(Cap { quota, period }), ..Policy::DEFAULT }
}

fn set(group: usize, policy: Policy) -> Command {
    Command::SetPolicy(GroupId::new(group), policy)
}

fn add(group: usize, script: Script, count: usize, worker: usize) -> Command {
    Command::Add { group: GroupId::new(group), script, count, worker, movable: true }
}

/// Where all groups have threads for all workers, each gets its share of every window of 100 ms, up to two
/// late slices, however many workers there are.
#[test]
fn shares_follow_weights_in_every_tenth_of_a_second() {
    for workers in [1, 2, 4, 16] {
        let mut program = Program::new(workers, 400 * MS);
        let weights = [100, 200, 700, 1000];
        for (i, w) in weights.into_iter().enumerate() {
            program = program.group(i, weight(w)).threads_at(i, workers * 2, Script::hog(), i);
        }
        let trace = verified(&program);
        let mut worst = 0;
        for from in (0..300).step_by(7) {
            let got = service(&trace, from * MS, (from + 100) * MS);
            for (i, w) in weights.into_iter().enumerate() {
                let fair = 100 * MS * workers as u64 * u64::from(w) / 2000;
                worst = worst.max(got[i].abs_diff(fair));
            }
        }
        assert!(worst <= 2 * terms(&program).late(), "{workers} workers: {worst}");
    }
}

/// Threads that yield cannot go on on a helper, and are overtaken by those that can; these keep their order.
#[test]
fn whoever_can_go_on_on_a_helper_is_relieved_in_order() {
    let yields = Script::forever(vec![Step::Compute(MS / 5), Step::Yield]);
    let mut program = Program::new(1, 50 * MS).threads(1, 4, yields);
    for at in [10 * MS, 20 * MS, 30 * MS] {
        // These have not begun, and those before have been interrupted.
        program = program.then(at, add(1, Script::hog(), 4, 0)).then(at, Command::Relieve(0));
    }
    let trace = verified(&program);
    let relieves = |event: &Event| matches!(event.what, What::Relieve { .. });
    let pairs = (1..trace.len()).filter(|i| relieves(&trace[i - 1]) && relieves(&trace[*i]));
    let out_of_order = |trace: &[Event]| {
        let found = check(terms(&program), trace, program.length);
        found.iter().any(|violation| violation.property == Property::FirstInFirstOut)
    };
    let mut caught = 0;
    for second in pairs.collect::<Vec<_>>() {
        let mut wrong = trace.clone();
        (wrong[second - 1].what, wrong[second].what) = (trace[second].what, trace[second - 1].what);
        caught += usize::from(out_of_order(&wrong));
    }
    assert!(caught > 1, "{caught}");
    let mut thefts = trace;
    for event in &mut thefts {
        if let What::Relieve { worker, thread } = event.what {
            event.what = What::Take { worker, thread, moves: true };
        }
    }
    assert!(out_of_order(&thefts), "nobody was overtaken");
}

/// On one worker, where leases end nearly in time.
#[test]
fn hogs_are_within_a_slice_of_their_shares_in_every_tenth_of_a_second() {
    for weights in [vec![100, 200, 700], vec![1, 1], vec![50, 1000, 300], vec![100; 8]] {
        let mut program = Program::new(1, 1000 * MS);
        program.overshoot = program.slice / 16;
        for (i, w) in weights.iter().enumerate() {
            program = program.group(i, weight(*w)).threads(i, 2, Script::hog());
        }
        let trace = verified(&program);
        let all: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut worst = 0;
        for from in (0..900).step_by(3) {
            let got = service(&trace, from * MS, (from + 100) * MS);
            let off = |(i, w): (usize, &u32)| got[i].abs_diff(100 * MS * u64::from(*w) / all);
            worst = worst.max(weights.iter().enumerate().map(off).max().unwrap_or(0));
        }
        assert!(worst <= program.slice, "{weights:?}: {worst}");
    }
}

#[test]
fn a_group_alone_gets_everything() {
    for workers in [1, 3] {
        let program = Program::new(workers, 50 * MS).threads(7, workers * 2, Script::hog());
        let got = service(&verified(&program), 0, program.length)[7];
        assert_eq!(got, (program.length - SEARCH) * workers as u64);
    }
}

#[test]
fn groups_without_load_change_nothing() {
    let program = |others: usize| {
        let mut program = Program::new(2, 60 * MS).group(0, weight(10)).group(1, weight(1000));
        for other in 2..others {
            program = program.group(other, Policy { latency: 50_000, ..weight(10_000) });
        }
        program.threads(0, 4, Script::hog()).threads(1, 3, Script::bursts(300_000, 400_000))
    };
    let without = |others| {
        let mut trace = verified(&program(others));
        trace.retain(|event| !matches!(event.what, What::Weight { .. }));
        trace
    };
    assert_eq!(without(2), without(MOST_GROUPS));
}

/// Group 1 has weight 50 and computes for 20 µs each ms; groups 2 and 3, each of weight 1,000, are busy. Its
/// share would be 24 µs each ms. It is served within (its request × sum of the others' weights / its weight),
/// which is how long it takes until its share has grown by a request, one grace, for which nobody is
/// interrupted, and the overshoot.
#[test]
fn a_group_with_short_bursts_is_served_soon_among_heavy_ones() {
    for overshoot in [0, 250_000] {
        let mut program = Program::new(1, 1000 * MS)
            .group(1, weight(50))
            .group(2, weight(1000))
            .group(3, weight(1000))
            .threads(1, 1, Script::bursts(20_000, 980_000))
            .threads(2, 3, Script::hog())
            .threads(3, 3, Script::hog());
        program.overshoot = overshoot;
        let bound = 20_000 * 2000 / 50 + program.grace() + overshoot;
        let mut woken = None;
        let mut waits = Vec::new();
        for event in verified(&program).iter().filter(|event| event.at > 100 * MS) {
            match event.what {
                What::Wake { thread: 0, .. } => woken = Some(event.at),
                What::SwitchIn { thread: 0, .. } => {
                    waits.extend(woken.take().map(|at| event.at - at));
                }
                _ => {}
            }
        }
        waits.sort_unstable();
        let (middle, last) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        assert!(waits.len() > 400 && last <= bound, "{last} of {bound}, in the middle {middle}");
    }
}

/// For 300 ms, the second group sleeps. After that it gets its half, and at most a lag more.
#[test]
fn a_group_that_sleeps_gains_no_credit() {
    for workers in [1, 2] {
        let late = Script::once(vec![Step::Sleep(300 * MS), Step::Compute(1 << 40)]);
        let program = Program::new(workers, 400 * MS)
            .group(1, weight(500))
            .group(2, weight(500))
            .threads(1, workers * 2, Script::hog())
            .threads(2, workers * 2, late);
        let trace = verified(&program);
        let lag = terms(&program).lag(2, false);
        for to in (301..400).step_by(3) {
            let got = service(&trace, 300 * MS, to * MS)[2];
            assert!(got <= (to - 300) * MS * workers as u64 / 2 + lag, "{got} until {to}");
        }
    }
}

/// It computes for more than its share whenever it is awake. Over the whole run it gets its share, and at
/// most a lag more.
#[test]
fn who_takes_too_much_and_sleeps_in_between_gets_no_more_than_its_share() {
    for (compute, sleep) in [(700_000, 20_000), (950_000, 300_000), (3 * MS, MS), (90_000, 10_000)]
    {
        let program = Program::new(1, 1500 * MS)
            .group(1, weight(200))
            .group(2, weight(800))
            .threads(1, 1, Script::bursts(compute, sleep))
            .threads(2, 2, Script::hog());
        let trace = verified(&program);
        for to in (100..1500).step_by(100) {
            let got = service(&trace, 0, to * MS)[1];
            assert!(got <= to * MS / 5 + terms(&program).lag(2, false), "{got} until {to}");
        }
    }
}

/// Over a whole run, a capped group that has enough to do gets its quota of each period, up to
/// `2 * workers * late`.
#[test]
fn a_capped_group_gets_its_quota_and_no_more() {
    for (workers, quota, period) in
        [(1, 2 * MS, 10 * MS), (1, MS / 4, 3 * MS), (4, 12 * MS, 10 * MS)]
    {
        let program = Program::new(workers, 300 * MS)
            .group(1, capped(quota, period))
            .threads(1, workers * 3, Script::hog())
            .threads(2, workers, Script::hog());
        let got = service(&verified(&program), 0, program.length)[1];
        let quota = program.length / period * quota;
        let off = 2 * workers as u64 * terms(&program).late();
        assert!(got.abs_diff(quota) <= off, "{got} of {quota}");
    }
}

#[test]
fn a_cap_that_comes_late_does_not_count_what_was_used_before() {
    let program = Program::new(1, 500 * MS)
        .threads(1, 2, Script::hog())
        .then(200 * MS, set(1, capped(2 * MS, 10 * MS)));
    let got = service(&verified(&program), 250 * MS, 450 * MS)[1];
    assert!(got.abs_diff(40 * MS) < 5 * MS, "{got}");
}

#[test]
fn a_cap_with_another_period_does_not_wait_for_the_end_of_the_old_one() {
    let program = Program::new(1, 500 * MS)
        .group(1, capped(2 * MS, 10_000 * MS))
        .threads(1, 2, Script::hog())
        .then(200 * MS, set(1, capped(2 * MS, 10 * MS)));
    let got = service(&verified(&program), 250 * MS, 450 * MS)[1];
    assert!(got.abs_diff(40 * MS) < 5 * MS, "{got}");
}

/// The heavy group's only thread cannot use what its weight is worth. The last group, which comes after a
/// second, must not run alone with it for another second.
#[test]
fn who_comes_late_does_not_inherit_what_a_narrow_group_could_not_use() {
    let program = Program::new(2, 1200 * MS)
        .group(1, weight(10_000))
        .group(2, weight(1000))
        .group(3, weight(1000))
        .threads(1, 1, Script::hog())
        .threads(2, 4, Script::hog())
        .then(1000 * MS, add(3, Script::hog(), 4, 0));
    let got = service(&verified(&program), 1000 * MS, 1200 * MS);
    assert!(got[2].abs_diff(got[3]) <= terms(&program).lag(3, false), "{:?}", &got[..4]);
}

/// Those that sleep are woken in the middle of the slices of each other, again and again.
#[test]
fn a_hog_gets_turns_among_threads_that_are_cut_short() {
    for count in 2..7 {
        let program = Program::new(1, 300 * MS).threads(1, 1, Script::hog()).threads(
            1,
            count,
            Script::bursts(900_000, 100_000),
        );
        verified(&program);
    }
}

/// Group 1 gets its share on worker 0; on worker 1, where one of its threads waits, a heavy thread that is
/// owed for ever runs.
#[test]
fn a_thread_whose_group_is_served_elsewhere_is_fetched() {
    let program = Program::new(2, 300 * MS)
        .group(1, weight(100))
        .group(2, weight(10_000))
        .threads_at(2, 1, Script::hog(), 1)
        .threads_at(1, 6, Script::hog(), 0);
    let trace = verified(&program);
    let ran = |thread| {
        trace.iter().any(|e| matches!(e.what, What::SwitchIn { thread: t, .. } if t == thread))
    };
    assert!((0..7).all(ran));
}

/// Light groups that are eligible and have little left of their requests do not go, one after the other and
/// each for a slice, before a heavy one that wakes up.
#[test]
fn a_heavy_group_does_not_wait_for_what_is_left_of_others() {
    let mut program = Program::new(1, 60 * MS)
        .group(1, weight(1))
        .group(2, weight(10_000))
        .group(3, weight(1))
        .group(4, weight(1))
        .threads(4, 1, Script::forever(vec![Step::Compute(184_808), Step::Yield]))
        .threads(3, 1, Script::hog())
        .threads(1, 2, Script { steps: vec![Step::Compute(68_934)], rounds: 7 })
        .threads(2, 2, Script::bursts(236_616, 120_358))
        .then(9_085_461, add(1, Script::hog(), 1, 0));
    program.overshoot = 154_730;
    for seed in 0..40 {
        program.seed = seed;
        verified(&program);
    }
}

/// The group that is served has 20 µs left of its request when another one comes, which wants 100 µs and
/// has a later deadline.
#[test]
fn a_short_rest_of_a_request_goes_behind_those_who_want_little() {
    let mut shares = Shares::new(1, MS);
    let (hog, light) = (GroupId::new(1), GroupId::new(2));
    shares.set_policy(0, light, Policy { latency: 100_000, ..Policy::DEFAULT });
    let serves = |choice, group| assert!(matches!(choice, Choice::Serve(g, _) if g == group));
    serves(shares.choose(0, 0, Groups::only(hog), Elsewhere::default()), hog);
    let until = MS / 8 * 5;
    let both = Groups::only(hog).with(Groups::only(light));
    assert_eq!(shares.review(until - 20_000, 0, both, Elsewhere::default()), None);
    serves(shares.choose(until - 20_000, 0, both, Elsewhere::default()), light);
}

#[test]
fn a_group_that_has_exactly_its_share_is_eligible() {
    let mut shares = Shares::new(1, MS);
    let (first, urgent) = (GroupId::new(1), GroupId::new(2));
    shares.set_policy(0, urgent, Policy { latency: 100_000, ..Policy::DEFAULT });
    let both = Groups::only(first).with(Groups::only(urgent));
    let choice = shares.choose(0, 0, both, Elsewhere::default());
    assert!(matches!(choice, Choice::Serve(group, _) if group == urgent), "{choice:?}");
}

/// Worker 0 has threads of one group only, worker 1 those of two others. Each gets two thirds of a worker.
#[test]
fn a_worker_takes_over_what_another_cannot_serve_enough() {
    let mut program = Program::new(2, 300 * MS);
    for (group, worker) in [(1, 0), (2, 1), (3, 1)] {
        for _ in 0..2 {
            program = program.threads_at(group, 1, Script::hog(), worker);
        }
    }
    let got = service(&verified(&program), 0, program.length);
    for group in 1..=3 {
        let off = got[group].abs_diff(program.length * 2 / 3);
        assert!(off <= terms(&program).lag(3, false), "{:?}", &got[1..4]);
    }
}

#[test]
fn all_groups_and_many_workers_get_their_shares() {
    let mut program = Program::new(64, 40 * MS);
    for group in 0..MOST_GROUPS {
        let heavy = if group % 2 == 0 { 10_000 } else { 1 };
        program = program.group(group, weight(heavy)).threads_at(group, 4, Script::hog(), group);
    }
    verified(&program);
    let mut program = Program::new(1, 400 * MS);
    for group in 0..MOST_GROUPS {
        let heavy = if group == 5 { 10_000 } else { 1 };
        program = program.group(group, weight(heavy)).threads(group, 1, Script::hog());
    }
    verified(&program);
}
