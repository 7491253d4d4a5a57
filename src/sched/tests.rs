use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;

thread_local!(static NEXT: Cell<[Option<Id>; 64]> = const { Cell::new([None; 64]) });

/// A thread that is nothing but its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(usize);

impl Link for Id {
    fn next(self) -> Option<Id> {
        NEXT.get()[self.0]
    }

    fn set_next(self, next: Option<Id>) {
        let mut all = NEXT.get();
        all[self.0] = next;
        NEXT.set(all);
    }
}

#[test]
fn a_thread_alone_keeps_its_turn() {
    let mut q = RunQueue::new();
    assert_eq!(q.rotate(Id(1), |_| panic!("there is no other")), Id(1));
    assert_eq!(q.len(), 0);
}

#[test]
fn yielding_goes_behind_all_others() {
    let mut q = RunQueue::new();
    (1..=3).for_each(|i| q.push(Id(i)));
    assert_eq!(q.rotate(Id(0), |next| assert_eq!(next, Id(1))), Id(1));
    let order: Vec<_> = std::iter::from_fn(|| q.pop()).collect();
    assert_eq!(order, [Id(2), Id(3), Id(0)]);
}

#[test]
fn who_wakes_up_runs_before_who_was_interrupted() {
    let mut q = RunQueue::new();
    q.push_interrupted(Id(1), true);
    q.push_interrupted(Id(2), true);
    q.push_interrupted(Id(3), false);
    q.push(Id(4));
    let order: Vec<_> = std::iter::from_fn(|| q.pop()).collect();
    assert_eq!(order, [Id(4), Id(3), Id(1), Id(2)]);
}

#[test]
fn a_thread_that_was_interrupted_gets_its_turn_among_threads_that_yield() {
    let mut q = RunQueue::new();
    q.push_interrupted(Id(0), true);
    (1..4).for_each(|i| q.push(Id(i)));
    let mut current = q.pop().unwrap();
    for slices in 0.. {
        assert!(slices < 3, "more than two slices without a turn");
        for _ in 0..10 {
            current = q.rotate(current, |_| ());
        }
        if current == Id(0) || q.spent.length == 0 {
            break;
        }
        q.slice_passed();
    }
}

#[test]
fn a_turn_that_was_due_is_known_as_such() {
    let mut q = RunQueue::new();
    q.push_interrupted(Id(0), true);
    q.push(Id(1));
    q.slice_passed();
    q.slice_passed();
    assert_eq!((q.pop(), q.took_due()), (Some(Id(0)), true));
    assert_eq!((q.pop(), q.took_due()), (Some(Id(1)), false));
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Interrupt(bool),
    Pop,
    Rotate,
    Slice,
    Steal(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Push),
        2 => any::<bool>().prop_map(Step::Interrupt),
        3 => Just(Step::Pop),
        2 => Just(Step::Rotate),
        1 => Just(Step::Slice),
        1 => (0_usize..8).prop_map(Step::Steal),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Against two plain queues: nothing is lost or duplicated, levels are first in, first out, and a spent
    /// thread comes out after two slices at the latest.
    #[test]
    fn the_queue_is_two_fifos_in_which_nobody_starves(steps in steps()) {
        let mut q = RunQueue::new();
        let (mut fresh, mut spent) = (VecDeque::new(), VecDeque::<Id>::new());
        let mut unused: Vec<Id> = (0..64).map(Id).collect();
        let mut slices_neglected = 0;
        for step in steps {
            match step {
                Step::Push => if let Some(id) = unused.pop() {
                    q.push(id);
                    fresh.push_back(id);
                },
                Step::Interrupt(used_up) => if let Some(id) = unused.pop() {
                    q.push_interrupted(id, used_up);
                    if used_up { spent.push_back(id) } else { spent.push_front(id) }
                },
                Step::Pop | Step::Rotate => {
                    let old = matches!(step, Step::Rotate).then(|| unused.pop()).flatten();
                    let got = match old {
                        Some(old) => Some(q.rotate(old, |_| ())).filter(|got| *got != old),
                        None => q.pop(),
                    };
                    match got {
                        Some(id) if fresh.front() == Some(&id) => { fresh.pop_front(); }
                        Some(id) => {
                            prop_assert_eq!(spent.pop_front(), Some(id));
                            prop_assert_eq!(q.took_due(), !fresh.is_empty());
                            slices_neglected = 0;
                        }
                        None => prop_assert!(fresh.is_empty() && spent.is_empty()),
                    }
                    if let Some(old) = old {
                        if got.is_some() { fresh.push_back(old) } else { unused.push(old) }
                    }
                    unused.extend(got);
                    prop_assert!(slices_neglected < 2 || spent.is_empty() || got.is_none());
                }
                Step::Slice => {
                    q.slice_passed();
                    slices_neglected += 1;
                }
                Step::Steal(room) => {
                    let mut loot = Vec::with_capacity(room);
                    let room = loot.capacity();
                    let want = q.len().div_ceil(2).min(room);
                    q.steal_into(&mut loot, |_| true);
                    prop_assert_eq!(loot.len(), want);
                    for id in loot {
                        prop_assert_eq!(fresh.pop_front().or_else(|| spent.pop_front()), Some(id));
                        unused.push(id);
                    }
                }
            }
            if spent.is_empty() {
                slices_neglected = 0;
            }
            prop_assert_eq!(q.len(), fresh.len() + spent.len());
            prop_assert_eq!(q.fresh_len(), fresh.len());
        }
    }

    #[test]
    fn stealing_takes_none_that_is_bound_and_keeps_the_order(bound in prop::collection::vec(any::<bool>(), 0..64)) {
        let mut q = RunQueue::new();
        (0..bound.len()).for_each(|i| q.push(Id(i)));
        let mut loot = Vec::with_capacity(MOST_STOLEN);
        q.steal_into(&mut loot, |id| !bound[id.0]);
        prop_assert!(loot.iter().all(|id| !bound[id.0]));
        prop_assert!(loot.is_sorted_by_key(|id| id.0));
        let mut rest: Vec<usize> = std::iter::from_fn(|| q.pop()).map(|id| id.0).collect();
        rest.extend(loot.iter().map(|id| id.0));
        rest.sort_unstable();
        prop_assert_eq!(rest, (0..bound.len()).collect::<Vec<_>>());
    }
}
