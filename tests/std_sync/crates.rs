//! What other crates build on the same ground: `parking_lot`, which waits on futexes of its own, and
//! `crossbeam-channel`, which parks.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{
    RecvTimeoutError, SendTimeoutError, after, bounded, select, tick, unbounded,
};
use parking_lot::{
    Condvar, Mutex, MutexGuard, Once, ReentrantMutex, RwLock, RwLockUpgradableReadGuard,
};

use crate::cast::{Room, TIMES, a_moment, at_once, eventually, join_all, lasting, panic};

scenarios! {
    fn a_taken_lock_is_waited_for(cast) {
        let mutex = Mutex::new(0);
        cast.scope(|crew| {
            let mut guard = mutex.lock();
            let waiting = [(); 3].map(|()| crew.spawn_waiting(|| *mutex.lock()));
            *guard = 7;
            drop(guard);
            assert_eq!(waiting.map(|w| w.join()), [7; 3]);
        });
    }

    fn one_at_a_time_is_inside_even_if_locks_are_handed_on(cast) {
        let (mutex, room) = (Mutex::new(0), Room::default());
        cast.scope(|crew| {
            let (mutex, room) = (&mutex, &room);
            crew.spawn_all(6, move |i| {
                for n in 0..100 {
                    let mut visits = mutex.lock();
                    room.visit_alone();
                    *visits += 1;
                    if (n + i).is_multiple_of(3) {
                        MutexGuard::unlock_fair(visits);
                    }
                }
            });
        });
        assert_eq!(mutex.into_inner(), 600);
    }

    fn times_of_locks_are_not_up_early(cast) {
        let (mutex, lock) = (Mutex::new(()), RwLock::new(()));
        cast.scope(|crew| {
            let _guards = (mutex.lock(), lock.write());
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    assert!(lasting(time, || mutex.try_lock_for(time)).is_none());
                    assert!(lasting(time, || lock.try_read_for(time)).is_none());
                    let until = || lock.try_write_until(Instant::now() + time);
                    assert!(lasting(time, until).is_none());
                }
            }));
        });
    }

    fn a_panic_frees_the_lock(cast) {
        let mutex = Mutex::new(1);
        cast.scope(|crew| {
            let panics = crew.spawn(|| {
                let _guard = mutex.lock();
                panic();
            });
            assert!(panics.outcome().is_err());
            assert_eq!(*mutex.lock(), 1);
        });
    }

    fn each_notification_wakes_one_or_all(cast) {
        let (counts, changed) = (Mutex::new((0, 0)), Condvar::new());
        cast.scope(|crew| {
            let members = crew.spawn_all(8, |_| {
                let mut guard = counts.lock();
                guard.0 += 1;
                changed.wait_while(&mut guard, |(_, may_go)| *may_go == 0);
                guard.0 -= 1;
                guard.1 -= 1;
            });
            eventually(|| counts.lock().0 == 8);
            for left in [7, 6, 5] {
                counts.lock().1 += 1;
                changed.notify_one();
                eventually(|| counts.lock().0 == left);
            }
            // Waiters are moved from the condition's queue to the lock's.
            let mut guard = counts.lock();
            guard.1 += 5;
            changed.notify_all();
            a_moment();
            assert_eq!(guard.0, 5);
            drop(guard);
            join_all(members);
        });
    }

    fn times_of_conditions_are_not_up_early(cast) {
        let (mutex, changed) = (Mutex::new(()), Condvar::new());
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let wait = || changed.wait_while_for(&mut mutex.lock(), |()| true, time);
                    assert!(lasting(time, wait).timed_out());
                }
            }));
        });
    }

    fn readers_share_and_one_of_them_becomes_a_writer(cast) {
        let lock = RwLock::new(0);
        cast.scope(|crew| {
            let reader = lock.read();
            let upgrades = crew.spawn_waiting(|| {
                let guard = lock.upgradable_read();
                let seen = *guard;
                let mut guard = RwLockUpgradableReadGuard::upgrade(guard);
                assert_eq!(*guard, seen);
                *guard += 1;
            });
            drop(reader);
            upgrades.join();
            crew.spawn_all(6, |_| {
                for _ in 0..50 {
                    assert!(*lock.read() > 0);
                    let guard = lock.upgradable_read();
                    let seen = *guard;
                    *RwLockUpgradableReadGuard::upgrade(guard) = seen + 1;
                }
            });
        });
        assert_eq!(lock.into_inner(), 301);
    }

    fn initialisation_is_waited_for(cast) {
        let (once, runs) = (Once::new(), AtomicUsize::new(0));
        cast.scope(|crew| {
            crew.spawn_all(5, |_| {
                once.call_once(|| {
                    a_moment();
                    runs.fetch_add(1, SeqCst);
                });
                assert_eq!(runs.load(SeqCst), 1);
            });
        });
    }

    /// Whose it is, is told by the address of a thread-local.
    fn a_lock_that_may_be_taken_again_knows_its_holder(cast) {
        let (mutex, room) = (ReentrantMutex::new(()), Room::default());
        cast.scope(|crew| {
            crew.spawn_all(5, |_| {
                for _ in 0..50 {
                    let _first = mutex.lock();
                    std::thread::yield_now();
                    let _second = mutex.lock();
                    room.visit_alone();
                }
            });
        });
        assert_eq!(room.visits(), 250);
    }

    fn messages_have_many_receivers(cast) {
        for bound in [None, Some(0), Some(2)] {
            let (sender, receiver) = bound.map_or_else(unbounded, bounded);
            cast.scope(|crew| {
                let sums = crew.spawn_all(3, |_| receiver.iter().sum::<usize>());
                crew.spawn_all(3, move |_| (0..100).for_each(|n| sender.send(n).unwrap()));
                assert_eq!(join_all(sums).iter().sum::<usize>(), 3 * 99 * 50);
            });
        }
    }

    fn times_of_channels_are_not_up_early(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let (sender, receiver) = bounded(0);
                    let result = lasting(time, || receiver.recv_timeout(time));
                    assert_eq!(result, Err(RecvTimeoutError::Timeout));
                    let result = lasting(time, || sender.send_timeout(1, time));
                    assert_eq!(result, Err(SendTimeoutError::Timeout(1)));
                }
            }));
        });
    }

    fn one_waits_for_several_channels(cast) {
        let ((to_first, first), (to_second, second)) = (unbounded(), bounded(0));
        let (back, answers) = bounded(0);
        cast.scope(|crew| {
            let waiting = crew.spawn_waiting(|| {
                let mut received = Vec::new();
                while received.len() < 60 {
                    select! {
                        recv(first) -> n => received.push(n.unwrap()),
                        recv(second) -> n => received.push(n.unwrap()),
                    }
                }
                select! {
                    recv(first) -> _ => panic!("there is nothing"),
                    send(back, received.iter().sum::<u32>()) -> sent => sent.unwrap(),
                }
            });
            crew.spawn(|| (0..30).for_each(|n| to_first.send(n).unwrap()));
            crew.spawn(|| (0..30).for_each(|n| to_second.send(n).unwrap()));
            assert_eq!(answers.recv(), Ok(30 * 29));
            waiting.join();
        });
    }

    fn clocks_are_channels_too(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(2, |_| {
                let time = Duration::from_millis(3);
                lasting(time, || after(time).recv().unwrap());
                // From its creation on.
                lasting(3 * time, || tick(time).iter().take(3).count());
                let (_sender, receiver) = bounded::<()>(0);
                lasting(time, || {
                    select! {
                        recv(receiver) -> _ => panic!("there is nothing"),
                        default(time) => {}
                    }
                });
            }));
        });
    }

    fn the_end_of_either_side_wakes_the_other(cast) {
        cast.scope(|crew| {
            let (sender, receiver) = bounded::<()>(0);
            let waiting = crew.spawn_waiting(move || receiver.recv().is_err());
            drop(sender);
            assert!(waiting.join());
            let (sender, receiver) = bounded(0);
            let waiting = crew.spawn_waiting(move || sender.send(1).is_err());
            at_once(|| drop(receiver));
            assert!(waiting.join());
        });
    }
}
