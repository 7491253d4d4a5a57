//! `Condvar`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::cast::{
    Room, TIMES, a_moment, at_once, eventually, flag, is_up, join_all, lasting, panic, raise,
};

/// How many wait, and how many may go.
#[derive(Default)]
struct Gate {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: usize,
    may_go: usize,
}

impl Gate {
    /// Waits until one may go who has not gone.
    fn pass(&self) {
        let mut counts = self.counts.lock().unwrap();
        counts.waiting += 1;
        let mut counts = self.changed.wait_while(counts, |c| c.may_go == 0).unwrap();
        counts.may_go -= 1;
        counts.waiting -= 1;
    }

    fn waiting(&self) -> usize {
        self.counts.lock().unwrap().waiting
    }

    fn open(&self, n: usize) {
        self.counts.lock().unwrap().may_go += n;
    }
}

scenarios! {
    fn who_waits_has_given_the_lock_back_and_has_it_again_afterwards(cast) {
        let (mutex, changed) = (Mutex::new(0), Condvar::new());
        cast.scope(|crew| {
            let waiting = crew.spawn_waiting(|| {
                let mut guard = mutex.lock().unwrap();
                while *guard == 0 {
                    guard = changed.wait(guard).unwrap();
                }
                assert!(mutex.try_lock().is_err());
                *guard
            });
            let mut guard = mutex.lock().unwrap();
            *guard = 1;
            changed.notify_one();
            a_moment();
            assert!(!waiting.is_finished(), "the lock is taken");
            *guard = 2;
            drop(guard);
            assert_eq!(waiting.join(), 2);
        });
    }

    fn each_notification_of_one_wakes_one(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            crew.spawn_all(6, |_| gate.pass());
            eventually(|| gate.waiting() == 6);
            for left in (0..6).rev() {
                gate.open(1);
                gate.changed.notify_one();
                eventually(|| gate.waiting() == left);
            }
        });
    }

    fn a_notification_of_all_wakes_all(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            for _ in 0..3 {
                let members = crew.spawn_all(10, |_| gate.pass());
                eventually(|| gate.waiting() == 10);
                gate.open(10);
                gate.changed.notify_all();
                join_all(members);
            }
        });
    }

    fn those_who_are_woken_together_have_the_lock_one_after_the_other(cast) {
        let (gate, room) = (Gate::default(), Room::default());
        cast.scope(|crew| {
            crew.spawn_all(10, |_| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let _counts = gate.changed.wait_while(counts, |c| c.may_go == 0).unwrap();
                room.visit_alone();
            });
            eventually(|| gate.waiting() == 10);
            gate.open(1);
            gate.changed.notify_all();
        });
        assert_eq!(room.visits(), 10);
    }

    fn notifications_are_not_kept(cast) {
        let (mutex, changed) = (Mutex::new(()), Condvar::new());
        changed.notify_one();
        changed.notify_all();
        cast.scope(|crew| {
            join_all(crew.spawn_all(2, |_| {
                let time = Duration::from_millis(5);
                let wait = || changed.wait_timeout_while(mutex.lock().unwrap(), time, |()| true);
                assert!(lasting(time, wait).unwrap().1.timed_out());
            }));
        });
    }

    fn what_is_so_already_is_not_waited_for(cast) {
        let (mutex, changed) = (Mutex::new(1), Condvar::new());
        cast.scope(|crew| {
            join_all(crew.spawn_all(2, |_| {
                let guard = changed.wait_while(mutex.lock().unwrap(), |n| *n == 0).unwrap();
                drop(guard);
                let (guard, result) = at_once(|| {
                    changed.wait_timeout_while(mutex.lock().unwrap(), Duration::MAX, |n| *n == 0)
                })
                .unwrap();
                assert!(!result.timed_out() && *guard == 1);
            }));
        });
    }

    fn times_are_not_up_early(cast) {
        let changed = Condvar::new();
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let mutex = Mutex::new(());
                    let (_guard, result) =
                        lasting(time, || changed.wait_timeout(mutex.lock().unwrap(), time)).unwrap();
                    assert!(result.timed_out());
                    assert!(mutex.try_lock().is_err());
                }
            }));
        });
    }

    fn times_of_conditions_are_not_up_early_either(cast) {
        let (mutex, changed) = (Mutex::new(()), Condvar::new());
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let wait = || changed.wait_timeout_while(mutex.lock().unwrap(), time, |()| true);
                    assert!(lasting(time, wait).unwrap().1.timed_out());
                }
            }));
        });
    }

    fn notifications_that_change_nothing_do_not_prolong_the_time(cast) {
        let (mutex, changed, over) = (Mutex::new(()), Condvar::new(), flag());
        cast.scope(|crew| {
            let waiting = crew.spawn_all(2, |_| {
                let time = Duration::from_millis(20);
                let wait = || changed.wait_timeout_while(mutex.lock().unwrap(), time, |()| true);
                assert!(lasting(time, wait).unwrap().1.timed_out());
            });
            crew.spawn(|| {
                while !is_up(&over) {
                    changed.notify_all();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            join_all(waiting);
            raise(&over);
        });
    }

    fn who_is_woken_in_time_is_told_so(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            let waiting = crew.spawn_all(2, |_| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let forever = Duration::MAX;
                gate.changed.wait_timeout_while(counts, forever, |c| c.may_go == 0).unwrap().1
            });
            eventually(|| gate.waiting() == 2);
            gate.open(1);
            gate.changed.notify_all();
            assert!(join_all(waiting).iter().all(|result| !result.timed_out()));
        });
    }

    fn a_wait_without_a_condition_that_is_notified_is_not_timed_out(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            let waiting = crew.spawn(|| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let time = Duration::from_secs(1000);
                gate.changed.wait_timeout(counts, time).unwrap().1.timed_out()
            });
            eventually(|| gate.waiting() == 1);
            gate.changed.notify_one();
            assert!(!waiting.join());
        });
    }

    fn when_the_time_is_up_the_lock_is_waited_for_all_the_same(cast) {
        let (gate, left) = (Gate::default(), flag());
        cast.scope(|crew| {
            let waiting = crew.spawn(|| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let time = Duration::from_millis(5);
                let (_counts, result) = gate.changed.wait_timeout(counts, time).unwrap();
                assert!(result.timed_out() && is_up(&left));
            });
            let counts = loop {
                let counts = gate.counts.lock().unwrap();
                if counts.waiting == 1 || waiting.is_finished() {
                    break counts;
                }
                drop(counts);
                std::thread::yield_now();
            };
            a_moment();
            assert!(!waiting.is_finished());
            raise(&left);
            drop(counts);
            waiting.join();
        });
    }

    fn who_waits_with_a_lock_that_is_poisoned_is_told(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            let forever = crew.spawn_all(2, |_| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let error = gate.changed.wait_while(counts, |c| c.may_go == 0).unwrap_err();
                error.into_inner().may_go
            });
            let limited = crew.spawn_all(2, |_| {
                let mut counts = gate.counts.lock().unwrap();
                counts.waiting += 1;
                let time = Duration::from_secs(1000);
                let wait = gate.changed.wait_timeout_while(counts, time, |c| c.may_go == 0);
                wait.unwrap_err().into_inner().0.may_go
            });
            eventually(|| gate.waiting() == 4);
            let panics = crew.spawn(|| {
                let mut counts = gate.counts.lock().unwrap();
                counts.may_go = 9;
                gate.changed.notify_all();
                panic();
            });
            assert!(panics.outcome().is_err());
            // `wait_while` returns the error as soon as it is woken.
            assert_eq!(join_all(forever), [9; 2]);
            assert_eq!(join_all(limited), [9; 2]);
        });
    }

    fn players_take_turns_and_no_wake_up_is_lost(cast) {
        const PLAYERS: usize = 3;
        let (turn, changed) = (Mutex::new(0), Condvar::new());
        cast.scope(|crew| {
            let (turn, changed) = (&turn, &changed);
            crew.spawn_all(PLAYERS, move |own| {
                for _ in 0..100 {
                    let guard = turn.lock().unwrap();
                    let mut guard = changed.wait_while(guard, |t| *t % PLAYERS != own).unwrap();
                    *guard += 1;
                    changed.notify_all();
                }
            });
        });
        assert_eq!(turn.into_inner().unwrap(), 100 * PLAYERS);
    }

    fn what_producers_put_into_a_small_buffer_consumers_get(cast) {
        const EACH: usize = 150;
        let (buffer, not_full, not_empty) = (Mutex::new(VecDeque::new()), Condvar::new(), Condvar::new());
        cast.scope(|crew| {
            let (buffer, not_full, not_empty) = (&buffer, &not_full, &not_empty);
            let sums = crew.spawn_all(6, move |i| {
                let mut sum = 0;
                for n in 0..EACH {
                    let guard = buffer.lock().unwrap();
                    if i % 4 < 2 {
                        let mut guard = not_full.wait_while(guard, |b| b.len() == 2).unwrap();
                        guard.push_back(n);
                        not_empty.notify_one();
                    } else if i < 4 {
                        let wait = not_empty.wait_while(guard, |b| b.is_empty());
                        sum += wait.unwrap().pop_front().unwrap();
                        not_full.notify_one();
                    }
                }
                sum
            });
            // Two more producers, 4 and 5, and nobody for what they bring but this one.
            let rest: usize = (0..2 * EACH)
                .map(|_| {
                    let guard = not_empty.wait_while(buffer.lock().unwrap(), |b| b.is_empty()).unwrap();
                    let mut guard = guard;
                    let n = guard.pop_front().unwrap();
                    drop(guard);
                    not_full.notify_one();
                    n
                })
                .sum();
            assert_eq!(rest + join_all(sums).iter().sum::<usize>(), 4 * EACH * (EACH - 1) / 2);
        });
    }

    fn a_notification_just_when_the_time_is_up_is_not_lost_on_others(cast) {
        let gate = Gate::default();
        cast.scope(|crew| {
            let gate = &gate;
            // Some give up all the time; whoever gives up takes no wake-up along.
            let impatient = crew.spawn_all(3, move |i| {
                let mut passed = 0;
                for n in 0..60 {
                    let time = Duration::from_micros(((n * 37 + i * 11) % 200) as u64);
                    let counts = gate.counts.lock().unwrap();
                    let wait = gate.changed.wait_timeout_while(counts, time, |c| c.may_go == 0);
                    let (mut counts, result) = wait.unwrap();
                    if !result.timed_out() {
                        counts.may_go -= 1;
                        passed += 1;
                    }
                }
                passed
            });
            let patient = crew.spawn_all(2, move |_| (0..40).for_each(|_| gate.pass()));
            let passes = crew.spawn(move || {
                for _ in 0..80 {
                    gate.open(1);
                    gate.changed.notify_one();
                    std::thread::yield_now();
                }
            });
            passes.join();
            let taken: usize = join_all(impatient).iter().sum();
            // A wake-up may go to one whose time is up and who finds the gate closed or passes: replace those.
            gate.open(taken);
            gate.changed.notify_all();
            join_all(patient);
            assert_eq!(gate.counts.lock().unwrap().may_go, 0);
        });
    }
}
