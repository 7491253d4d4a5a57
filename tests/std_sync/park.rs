//! `std::thread`'s `park`, `unpark`, `sleep`, `yield_now`, `current` and `scope`.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::cast::{
    TIMES, a_moment, at_once, eventually, flag, is_up, join_all, lasting, panic, panics, raise,
};

/// The handles of participants.
type Handles = Vec<OnceLock<Thread>>;

fn handles(n: usize) -> Handles {
    (0..n).map(|_| OnceLock::new()).collect()
}

/// Says who is there.
fn enter(handle: &OnceLock<Thread>) {
    handle.set(thread::current()).unwrap();
}

/// Waits until somebody has entered.
fn of(handle: &OnceLock<Thread>) -> &Thread {
    eventually(|| handle.get().is_some());
    handle.get().unwrap()
}

scenarios! {
    fn who_parks_waits_for_the_token(cast) {
        let (handle, told) = (OnceLock::new(), flag());
        cast.scope(|crew| {
            let waiting = crew.spawn_waiting(|| {
                enter(&handle);
                while !is_up(&told) {
                    thread::park();
                }
            });
            // For no reason: it parks again.
            of(&handle).unpark();
            a_moment();
            assert!(!waiting.is_finished());
            raise(&told);
            of(&handle).unpark();
            waiting.join();
        });
    }

    fn a_token_that_is_there_is_taken_at_once(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                thread::current().unpark();
                at_once(thread::park);
                thread::current().unpark();
                at_once(|| thread::park_timeout(Duration::from_secs(1000)));
            }));
        });
    }

    fn there_is_but_one_token(cast) {
        let handle = OnceLock::new();
        let told = flag();
        cast.scope(|crew| {
            let parks = crew.spawn(|| {
                enter(&handle);
                while !is_up(&told) {
                    uthread::yield_now();
                }
                at_once(thread::park);
                let time = Duration::from_millis(10);
                lasting(time, || thread::park_timeout(time));
            });
            (0..3).for_each(|_| of(&handle).unpark());
            raise(&told);
            parks.join();
        });
    }

    fn times_are_not_up_early(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    lasting(time, || thread::park_timeout(time));
                }
            }));
        });
    }

    fn the_token_ends_a_wait_with_a_limit(cast) {
        let (handle, taken) = (OnceLock::new(), flag());
        cast.scope(|crew| {
            let parks = crew.spawn_waiting(|| {
                enter(&handle);
                at_once(|| thread::park_timeout(Duration::from_secs(1000)));
                raise(&taken);
                thread::park_timeout(Duration::MAX);
            });
            of(&handle).unpark();
            eventually(|| is_up(&taken));
            a_moment();
            assert!(!parks.is_finished());
            of(&handle).unpark();
            parks.join();
        });
    }

    fn a_token_just_when_the_time_is_up_is_not_lost(cast) {
        const ROUNDS: usize = 150;
        let (handle, asked, answered) = (OnceLock::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        cast.scope(|crew| {
            crew.spawn(|| {
                enter(&handle);
                for round in 1..=ROUNDS {
                    let mut tries = 0;
                    while asked.load(SeqCst) < round {
                        // In the end without a limit.
                        if tries == 5 {
                            thread::park();
                        } else {
                            thread::park_timeout(Duration::from_micros(((round + tries) * 13 % 90) as u64));
                            tries += 1;
                        }
                    }
                    answered.store(round, SeqCst);
                }
            });
            let handle = of(&handle);
            for round in 1..=ROUNDS {
                thread::sleep(Duration::from_micros((round * 7 % 130) as u64));
                asked.store(round, SeqCst);
                handle.unpark();
                while answered.load(SeqCst) < round {
                    thread::yield_now();
                }
            }
        });
    }

    fn what_was_done_before_unparking_is_seen_after_parking(cast) {
        /// Written by who unparks, read by who parks.
        struct Data(UnsafeCell<usize>);
        // SAFETY: two threads take turns, by what is tested.
        unsafe impl Sync for Data {}

        impl Data {
            fn get(&self) -> usize {
                // SAFETY: it is the caller's turn.
                unsafe { *self.0.get() }
            }
            fn set(&self, value: usize) {
                // SAFETY: as above.
                unsafe { *self.0.get() = value };
            }
        }

        let (data, turn, handles) = (Data(UnsafeCell::new(0)), AtomicUsize::new(0), handles(2));
        cast.scope(|crew| {
            let (data, turn, handles) = (&data, &turn, &handles);
            crew.spawn_all(2, move |own| {
                enter(&handles[own]);
                let other = of(&handles[1 - own]);
                for n in 0..200 {
                    // The order of this load is not what makes the data visible, if the thread parked.
                    while turn.load(Relaxed) != 2 * n + own {
                        thread::park();
                    }
                    std::sync::atomic::fence(SeqCst);
                    assert_eq!(data.get(), 2 * n + own);
                    data.set(2 * n + own + 1);
                    turn.store(2 * n + own + 1, std::sync::atomic::Ordering::Release);
                    other.unpark();
                }
            });
        });
        assert_eq!(data.get(), 400);
    }

    fn a_turn_goes_round_a_ring(cast) {
        const MEMBERS: usize = 5;
        let (turn, handles) = (AtomicUsize::new(0), handles(MEMBERS));
        cast.scope(|crew| {
            let (turn, handles) = (&turn, &handles);
            crew.spawn_all(MEMBERS, move |own| {
                enter(&handles[own]);
                let next = of(&handles[(own + 1) % MEMBERS]);
                for lap in 0..50 {
                    while turn.load(SeqCst) != lap * MEMBERS + own {
                        thread::park();
                    }
                    turn.fetch_add(1, SeqCst);
                    next.unpark();
                }
            });
        });
        assert_eq!(turn.into_inner(), 50 * MEMBERS);
    }

    fn many_unpark_one(cast) {
        let (handle, left) = (OnceLock::new(), AtomicUsize::new(300));
        cast.scope(|crew| {
            crew.spawn(|| {
                enter(&handle);
                while left.load(SeqCst) > 0 {
                    thread::park();
                }
            });
            crew.spawn_all(3, |_| {
                for _ in 0..100 {
                    left.fetch_sub(1, SeqCst);
                    of(&handle).unpark();
                }
            });
        });
    }

    fn to_unpark_one_that_has_ended_does_no_harm(cast) {
        let handles = handles(3);
        cast.scope(|crew| {
            let handles = &handles;
            join_all(crew.spawn_all(3, move |i| enter(&handles[i])));
            handles.iter().for_each(|h| of(h).unpark());
        });
        handles.iter().for_each(|h| of(h).unpark());
    }

    fn tokens_of_the_crate_are_others_than_those_of_std(cast) {
        let (handle, in_std) = (OnceLock::new(), flag());
        cast.scope(|crew| {
            let parks = crew.spawn_waiting(|| {
                handle.set((thread::current(), uthread::current())).unwrap();
                uthread::park();
                raise(&in_std);
                thread::park();
                let time = Duration::from_millis(10);
                lasting(time, || thread::park_timeout(time));
            });
            eventually(|| handle.get().is_some());
            let (of_std, of_crate) = handle.get().unwrap();
            of_std.unpark();
            a_moment();
            assert!(!is_up(&in_std));
            // Its token in std waits for the other `park`; the second one of the crate does not end that.
            of_crate.unpark();
            eventually(|| is_up(&in_std));
            of_crate.unpark();
            parks.join();
        });
    }

    fn a_thread_is_the_same_one_after_each_wait_and_no_other(cast) {
        let seen = Mutex::new(Vec::new());
        cast.scope(|crew| {
            join_all(crew.spawn_all(6, |_| {
                let own = thread::current().id();
                for _ in 0..5 {
                    thread::yield_now();
                    thread::park_timeout(Duration::from_micros(50));
                    drop(seen.lock().unwrap());
                    assert_eq!(thread::current().id(), own);
                }
                seen.lock().unwrap().push(own);
            }));
        });
        let seen = seen.into_inner().unwrap();
        assert!((1..seen.len()).all(|i| !seen[..i].contains(&seen[i])), "{seen:?}");
    }

    fn nobody_sleeps_less_than_was_asked_for(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(4, |_| {
                for time in TIMES {
                    lasting(time, || thread::sleep(time));
                }
            }));
        });
    }

    fn many_sleep_at_once(cast) {
        cast.scope(|crew| {
            let began = std::time::Instant::now();
            join_all(crew.spawn_all(100, |i| {
                let time = Duration::from_millis(5 + (i % 10) as u64);
                lasting(time, || thread::sleep(time));
            }));
            // One after the other, they would take a second.
            if uthread::interposed() {
                assert!(began.elapsed() < Duration::from_millis(900));
            }
        });
    }

    fn who_yields_lets_others_run(cast) {
        let turn = AtomicUsize::new(0);
        cast.scope(|crew| {
            let turn = &turn;
            crew.spawn_all(3, move |own| {
                for n in 0..30 {
                    while turn.load(SeqCst) != 3 * n + own {
                        thread::yield_now();
                    }
                    turn.fetch_add(1, SeqCst);
                }
            });
        });
    }

    fn a_scope_waits_for_all_of_its_threads_and_sees_what_they_did(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                let mut numbers = [0; 4];
                thread::scope(|s| {
                    for (i, number) in numbers.iter_mut().enumerate() {
                        s.spawn(move || {
                            thread::sleep(Duration::from_micros(300));
                            *number = i;
                        });
                    }
                });
                assert_eq!(numbers, [0, 1, 2, 3]);
            }));
        });
    }

    fn a_scope_panics_if_one_of_its_threads_did_and_was_not_joined(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(2, |_| {
                // Its own panic is put off until all threads have ended.
                let ended = flag();
                assert!(panics(|| {
                    thread::scope(|s| {
                        s.spawn(|| {
                            a_moment();
                            raise(&ended);
                        });
                        panic();
                    });
                }));
                assert!(is_up(&ended));
            }));
        });
    }
}

scenarios! {
    with help:

    fn threads_are_joined(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(2, |i| {
                let thread = thread::spawn(move || {
                    a_moment();
                    i
                });
                assert_eq!(thread.join().unwrap(), i);
                let panics = thread::spawn(|| panic());
                assert!(panics.join().is_err());
                thread::scope(|s| {
                    let thread = s.spawn(|| {
                        a_moment();
                        i
                    });
                    assert!(!thread.is_finished());
                    assert_eq!(thread.join().unwrap(), i);
                    assert!(s.spawn(|| panic()).join().is_err());
                });
            }));
        });
    }
}
