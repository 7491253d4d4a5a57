//! Tests of the queue alone.

use std::cell::RefCell;
use std::collections::VecDeque;

use proptest::prelude::*;

use crate::sched::{GroupId, Groups, Link, MOST_STOLEN, RunQueue};

thread_local!(static NEXT: RefCell<Vec<Option<Id>>> = const { RefCell::new(Vec::new()) });

/// A thread that is nothing but its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sched) struct Id(pub(super) usize);

impl Id {
    /// Their links may be reused.
    pub(super) fn forget_all() {
        NEXT.take();
    }
}

impl Link for Id {
    fn next(self) -> Option<Id> {
        NEXT.with_borrow(|all| all.get(self.0).copied().flatten())
    }

    fn set_next(self, next: Option<Id>) {
        NEXT.with_borrow_mut(|all| {
            if all.len() <= self.0 {
                all.resize(self.0 + 1, None);
            }
            all[self.0] = next;
        });
    }
}

const G: GroupId = GroupId::DEFAULT;

fn drain(q: &mut RunQueue<Id>, group: GroupId) -> Vec<usize> {
    std::iter::from_fn(|| q.pop(group)).map(|id| id.0).take(1000).collect()
}

#[test]
fn an_empty_queue_has_nothing_for_any_group() {
    let mut q = RunQueue::<Id>::new();
    assert_eq!((q.len(), q.queued(), q.news()), (0, Groups::NONE, Groups::NONE));
    assert_eq!(q.pop(G), None);
    assert_eq!(q.peek(G), None);
}

#[test]
fn who_yields_goes_behind_all_others() {
    let mut q = RunQueue::new();
    (0..=3).for_each(|i| q.push(G, Id(i)));
    let first = q.pop(G).unwrap();
    q.push(G, first);
    assert_eq!(drain(&mut q, G), [1, 2, 3, 0]);
}

#[test]
fn who_wakes_up_runs_before_who_was_interrupted() {
    let mut q = RunQueue::new();
    q.push_interrupted(G, Id(1), true);
    q.push_interrupted(G, Id(2), true);
    q.push_interrupted(G, Id(3), false);
    q.push(G, Id(4));
    assert_eq!(drain(&mut q, G), [4, 3, 1, 2]);
}

#[test]
fn a_turn_that_was_due_is_known_as_such() {
    let mut q = RunQueue::new();
    q.push_interrupted(G, Id(0), true);
    q.push(G, Id(1));
    q.slice_passed(G);
    q.slice_passed(G);
    assert_eq!((q.pop(G), q.took_due()), (Some(Id(0)), true));
    assert_eq!((q.pop(G), q.took_due()), (Some(Id(1)), false));
}

#[test]
fn a_thread_that_was_interrupted_gets_its_turn_among_threads_that_yield() {
    let mut q = RunQueue::new();
    q.push_interrupted(G, Id(0), true);
    (1..4).for_each(|i| q.push(G, Id(i)));
    for slices in 0.. {
        assert!(slices < 3, "more than two slices without a turn");
        let turns: Vec<_> = (0..10).map(|_| q.pop(G).inspect(|id| q.push(G, *id))).collect();
        if turns.contains(&Some(Id(0))) {
            break;
        }
        q.slice_passed(G);
    }
}

#[test]
fn groups_that_come_are_news_until_they_are_seen() {
    let (a, b) = (GroupId::new(1), GroupId::new(63));
    let mut q = RunQueue::new();
    q.push(a, Id(0));
    assert_eq!(q.news(), Groups::only(a));
    q.seen();
    q.push(a, Id(1));
    assert_eq!(q.news(), Groups::NONE);
    q.push(b, Id(2));
    assert_eq!((q.news(), q.queued()), (Groups::only(b), Groups::only(a).with(Groups::only(b))));
    assert_eq!(drain(&mut q, a), [0, 1]);
    assert_eq!(q.queued(), Groups::only(b));
    assert_eq!(drain(&mut q, b), [2]);
    assert_eq!(q.len(), 0);
}

#[test]
fn who_was_cut_short_and_waits_for_a_slice_goes_behind_the_spent_ones() {
    let mut q = RunQueue::new();
    q.push_interrupted(G, Id(0), true);
    q.push_interrupted(G, Id(1), false);
    q.slice_passed(G);
    q.push_interrupted(G, Id(2), false);
    assert_eq!(q.pop(G), Some(Id(2)));
    q.slice_passed(G);
    assert_eq!(drain(&mut q, G), [0, 1]);
}

#[test]
fn a_group_that_is_passed_over_for_long_is_stranded_until_it_is_served_or_robbed() {
    let (a, b, c) = (GroupId::new(1), GroupId::new(2), GroupId::new(3));
    let mut q = RunQueue::new();
    [(a, 0), (b, 1), (b, 2), (c, 3)].into_iter().for_each(|(group, id)| q.push(group, Id(id)));
    (0..15).for_each(|_| q.slice_passed(a));
    assert_eq!(q.stranded(), Groups::NONE);
    (0..300).for_each(|_| q.slice_passed(a));
    assert_eq!(q.stranded(), Groups::only(b).with(Groups::only(c)));
    q.steal_into(b, &mut Vec::with_capacity(1), |_| true);
    assert_eq!(q.stranded(), Groups::only(c));
    assert_eq!(q.pop(c), Some(Id(3)));
    assert_eq!(q.stranded(), Groups::NONE);
}

#[test]
fn a_theft_leaves_those_that_are_bound_where_they_were() {
    let mut q = RunQueue::new();
    (0..6).for_each(|i| q.push(G, Id(i)));
    let mut loot = Vec::with_capacity(1);
    q.steal_into(G, &mut loot, |id| id.0 >= 2);
    assert_eq!(loot, [Id(2)]);
    assert_eq!(drain(&mut q, G), [0, 1, 3, 4, 5]);
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Interrupt(bool),
    Pop,
    Slice,
    Steal(usize),
}

fn steps() -> impl Strategy<Value = Vec<(GroupId, Step)>> {
    let step = prop_oneof![
        4 => Just(Step::Push),
        3 => any::<bool>().prop_map(Step::Interrupt),
        5 => Just(Step::Pop),
        2 => Just(Step::Slice),
        1 => (0_usize..8).prop_map(Step::Steal),
    ];
    prop::collection::vec(((0..2_usize).prop_map(GroupId::new), step), 0..200)
}

/// What the queue is to be for each group: three plain queues.
#[derive(Default)]
struct Model {
    fresh: VecDeque<Id>,
    cut: VecDeque<Id>,
    spent: VecDeque<Id>,
    /// Slices since a spent one was taken out.
    slices: usize,
}

impl Model {
    fn len(&self) -> usize {
        self.fresh.len() + self.cut.len() + self.spent.len()
    }

    /// Takes that one out, if it is the first of a level, and one may be taken from that level.
    fn take(&mut self, id: Id) -> bool {
        let (fresh, cut) = (self.fresh.front(), self.cut.front());
        if fresh == Some(&id) {
            self.fresh.pop_front();
            self.spent.is_empty() || self.slices < 2
        } else if cut == Some(&id) {
            self.cut.pop_front();
            self.fresh.is_empty() && (self.spent.is_empty() || self.slices < 2)
        } else {
            self.slices = 0;
            self.spent.pop_front() == Some(id)
        }
    }
}

proptest! {
    /// Against plain queues: nothing is lost or duplicated, levels are first in, first out, and a spent
    /// thread comes out after two slices at the latest.
    #[test]
    fn the_queue_is_fifos_in_which_nobody_starves(steps in steps()) {
        let mut q = RunQueue::new();
        let mut models = [Model::default(), Model::default()];
        let mut unused: Vec<Id> = (0..64).map(Id).collect();
        for (group, step) in steps {
            let model = &mut models[group.index()];
            match step {
                Step::Push => if let Some(id) = unused.pop() {
                    q.push(group, id);
                    model.fresh.push_back(id);
                },
                Step::Interrupt(used_up) => if let Some(id) = unused.pop() {
                    q.push_interrupted(group, id, used_up);
                    if used_up { model.spent.push_back(id) } else { model.cut.push_front(id) }
                },
                Step::Pop => match q.pop(group) {
                    Some(id) => {
                        let waits = !model.fresh.is_empty();
                        let is_spent = model.spent.contains(&id);
                        prop_assert!(model.take(id), "{id:?}");
                        prop_assert_eq!(q.took_due(), is_spent && waits);
                        unused.push(id);
                    }
                    None => prop_assert_eq!(model.len(), 0),
                },
                Step::Slice => {
                    q.slice_passed(group);
                    // The queue may have moved those that were cut short behind the spent ones: none of them
                    // is lost by that, and all may be taken out as spent ones are.
                    if q.cut_of(group) == 0 {
                        model.spent.append(&mut model.cut);
                    }
                    model.slices += 1;
                }
                Step::Steal(room) => {
                    let mut loot = Vec::with_capacity(room);
                    let want = model.len().div_ceil(2).min(loot.capacity());
                    q.steal_into(group, &mut loot, |_| true);
                    prop_assert_eq!(loot.len(), want);
                    for id in loot {
                        let lines = [&mut model.fresh, &mut model.cut, &mut model.spent];
                        let first = lines.into_iter().find_map(|line| line.pop_front());
                        prop_assert_eq!(first, Some(id));
                        unused.push(id);
                    }
                }
            }
            if model.spent.is_empty() {
                model.slices = 0;
            }
            for (i, model) in models.iter().enumerate() {
                let group = GroupId::new(i);
                prop_assert_eq!(q.len_of(group), model.len());
                prop_assert_eq!(q.fresh_of(group), model.fresh.len());
                prop_assert_eq!(q.queued().contains(group), model.len() > 0);
            }
            prop_assert_eq!(q.len(), models[0].len() + models[1].len());
        }
    }

    #[test]
    fn stealing_takes_none_that_is_bound_and_keeps_the_order(
        bound in prop::collection::vec(any::<bool>(), 0..64),
        room in 0..64_usize,
    ) {
        let mut q = RunQueue::new();
        (0..bound.len()).for_each(|i| q.push(G, Id(i)));
        let mut loot = Vec::with_capacity(room);
        q.steal_into(G, &mut loot, |id| !bound[id.0]);
        let left = drain(&mut q, G);
        prop_assert!(loot.iter().all(|id| !bound[id.0]));
        prop_assert!(loot.is_sorted_by_key(|id| id.0));
        prop_assert!(left.is_sorted());
        let mut all: Vec<usize> = loot.iter().map(|id| id.0).chain(left).collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..bound.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_thief_gets_half_but_never_more_than_fits(count in 0..600_usize) {
        let mut q = RunQueue::new();
        (0..count).for_each(|i| q.push(G, Id(i)));
        let mut loot = Vec::with_capacity(MOST_STOLEN);
        q.steal_into(G, &mut loot, |_| true);
        prop_assert_eq!(loot.len(), count.div_ceil(2).min(MOST_STOLEN));
        prop_assert_eq!(q.len(), count - loot.len());
    }
}
