//! Random programs keep all promises of [`Property`](super::checker::Property).
//!
//! `PROPTEST_CASES` sets how many; failures are kept, and come first the next time.

use proptest::prelude::*;

use super::checker::{Terms, check};
use super::generate::{busy_programs, programs};
use super::program::Program;
use super::simulation::{SEARCH, run};
use crate::sched::{Cap, Elsewhere, GroupId, Groups, Policy, Shares};

fn holds(program: &Program) -> Result<(), TestCaseError> {
    let &Program { workers, slice, overshoot, length, .. } = program;
    let terms = Terms { workers, slice, overshoot, search: SEARCH, skew: 0 };
    let violations = check(terms, &run(program), length);
    let some = violations.iter().take(3).collect::<Vec<_>>();
    prop_assert!(violations.is_empty(), "{} violations: {some:#?}", violations.len());
    Ok(())
}

/// That many, unless the environment says something else.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

/// What may be said about a group, and what may not.
fn any_policy() -> impl Strategy<Value = Policy> {
    let number = || prop_oneof![Just(0), Just(1), any::<u64>(), Just(u64::MAX)];
    let weight = prop_oneof![Just(0), Just(1), Just(u32::MAX), 1..=10_000_u32];
    let cap = prop::option::of((number(), number()));
    (weight, number(), cap).prop_map(|(weight, latency, cap)| Policy {
        weight,
        latency,
        cap: cap.map(|(quota, period)| Cap { quota, period }),
    })
}

#[derive(Clone, Debug)]
enum Call {
    SetPolicy(GroupId, Policy),
    Choose(usize, u64, u64, u64),
    Review(usize, u64, u64, u64),
    GiveUp(usize),
}

fn any_call() -> impl Strategy<Value = (u64, Call)> {
    let worker = 0..3_usize;
    let sets = (any::<u64>(), any::<u64>(), any::<u64>());
    let call = prop_oneof![
        1 => ((0..64_usize).prop_map(GroupId::new), any_policy())
            .prop_map(|(group, policy)| Call::SetPolicy(group, policy)),
        4 => (worker.clone(), sets).prop_map(|(w, (a, b, c))| Call::Choose(w, a, b, c)),
        2 => (worker.clone(), sets).prop_map(|(w, (a, b, c))| Call::Review(w, a, b, c)),
        1 => worker.prop_map(Call::GiveUp),
    ];
    let pause = prop_oneof![Just(0), 0..10_000_000_u64, Just(1 << 50)];
    (pause, call)
}

proptest! {
    #![proptest_config(cases(1000))]
    #[test]
    fn one_worker_keeps_all_promises(program in programs(1, 50)) {
        holds(&program)?;
    }
}

proptest! {
    #![proptest_config(cases(700))]
    #[test]
    fn two_workers_keep_all_promises(program in programs(2, 50)) {
        holds(&program)?;
    }
}

proptest! {
    #![proptest_config(cases(150))]
    #[test]
    fn five_workers_keep_all_promises(program in programs(5, 50)) {
        holds(&program)?;
    }

    #[test]
    fn one_worker_is_fair_to_busy_groups(program in busy_programs(1, 200)) {
        holds(&program)?;
    }
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn three_workers_are_fair_to_busy_groups(program in busy_programs(3, 200)) {
        holds(&program)?;
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Nothing that is said about groups, and no time that passes, overflows, divides by zero or makes a
    /// lease that ends before it begins.
    #[test]
    fn whatever_is_said_about_groups_the_policy_goes_on(
        slice in prop_oneof![Just(1), Just(1_000_000), any::<u64>(), Just(u64::MAX)],
        calls in prop::collection::vec(any_call(), 0..100),
    ) {
        let mut shares = Shares::new(3, slice);
        let mut now = 0;
        for (pause, call) in calls {
            now += pause;
            let elsewhere = |queued, stranded| Elsewhere {
                queued: Groups::from_bits(queued),
                stranded: Groups::from_bits(queued & stranded),
                bound: Groups::NONE,
            };
            match call {
                Call::SetPolicy(group, policy) => shares.set_policy(now, group, policy),
                Call::Choose(worker, a, b, c) => {
                    let _ = shares.choose(now, worker, Groups::from_bits(a), elsewhere(b, c));
                }
                Call::Review(worker, a, b, c) => {
                    let until = shares.review(now, worker, Groups::from_bits(a), elsewhere(b, c));
                    prop_assert!(until.is_none_or(|until| until >= now));
                }
                Call::GiveUp(worker) => shares.give_up(now, worker),
            }
        }
        for group in Groups::from_bits(u64::MAX).iter() {
            let _ = shares.totals(now, group);
        }
    }

    /// What is owed stays the same, but for rounding, whatever the new weight, and so does what others are
    /// owed.
    #[test]
    fn changing_a_weight_keeps_what_is_owed(
        weights in prop::collection::vec(1..=10_000_u32, 2..8),
        turns in 0..50_u64,
        new in 1..=10_000_u32,
        which in 0..8_usize,
    ) {
        const SLICE: u64 = 1_000_000;
        let mut shares = Shares::new(1, SLICE);
        let mut all = Groups::NONE;
        for (i, weight) in weights.iter().enumerate() {
            all.insert(GroupId::new(i));
            let policy = Policy { weight: *weight, ..Policy::DEFAULT };
            shares.set_policy(0, GroupId::new(i), policy);
        }
        for turn in 0..=turns {
            let _ = shares.choose(turn * SLICE, 0, all, Elsewhere::default());
        }
        shares.give_up(turns * SLICE, 0);
        let lags = |s: &Shares| all.iter().map(|g| s.lag(g)).collect::<Vec<_>>();
        let before = lags(&shares);
        let policy = Policy { weight: new, ..Policy::DEFAULT };
        shares.set_policy(turns * SLICE, GroupId::new(which % weights.len()), policy);
        for (before, after) in before.iter().zip(lags(&shares)) {
            prop_assert!(before.abs_diff(after) < 100, "{before} became {after}");
        }
    }
}
