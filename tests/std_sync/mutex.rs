//! `Mutex`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::cast::{Room, a_moment, at_once, flag, is_up, join_all, panic, panics, raise};

/// Whose holder panicked, a participant.
fn poisoned(cast: crate::cast::Cast, value: u32) -> Mutex<u32> {
    let mutex = Mutex::new(0);
    cast.scope(|crew| {
        let panics = crew.spawn(|| {
            let mut guard = mutex.lock().unwrap();
            *guard = value;
            panic();
        });
        assert!(panics.outcome().is_err());
    });
    mutex
}

scenarios! {
    fn a_taken_lock_is_waited_for(cast) {
        let mutex = Mutex::new(0);
        cast.scope(|crew| {
            let mut guard = mutex.lock().unwrap();
            let waiting = [(); 3].map(|()| crew.spawn_waiting(|| *mutex.lock().unwrap()));
            *guard = 7;
            drop(guard);
            assert_eq!(waiting.map(|w| w.join()), [7; 3]);
        });
    }

    fn one_at_a_time_is_inside_and_sees_what_the_last_one_did(cast) {
        let (mutex, room) = (Mutex::new(0), Room::default());
        cast.scope(|crew| {
            crew.spawn_all(6, |_| {
                for _ in 0..200 {
                    let mut visits = mutex.lock().unwrap();
                    room.visit_alone();
                    *visits += 1;
                    assert_eq!(*visits, room.visits());
                }
            });
        });
        assert_eq!(mutex.into_inner().unwrap(), 1200);
    }

    fn a_lock_stays_taken_while_its_holder_waits(cast) {
        let (mutex, stays) = (Mutex::new(0), flag());
        cast.scope(|crew| {
            let taken = flag();
            let (mutex, stays) = (&mutex, &stays);
            let taken = std::sync::Arc::new(taken);
            let theirs = taken.clone();
            crew.spawn(move || {
                let mut guard = mutex.lock().unwrap();
                raise(&theirs);
                for _ in 0..3 {
                    std::thread::yield_now();
                    a_moment();
                    *guard += 1;
                }
                raise(stays);
            });
            crate::cast::eventually(|| is_up(&taken));
            assert_eq!(*mutex.lock().unwrap(), 3);
            assert!(is_up(stays));
        });
    }

    fn trying_does_not_wait(cast) {
        let mutex = Mutex::new(1);
        cast.scope(|crew| {
            let guard = mutex.lock().unwrap();
            for tries in crew.spawn_all(3, |_| matches!(mutex.try_lock(), Err(TryLockError::WouldBlock))) {
                assert!(at_once(|| tries.join()));
            }
            drop(guard);
            assert_eq!(crew.spawn(|| *mutex.try_lock().unwrap()).join(), 1);
        });
    }

    fn a_holder_that_panics_lets_those_go_who_wait_and_they_are_told(cast) {
        let mutex = Mutex::new(0);
        cast.scope(|crew| {
            let (taken, go) = (std::sync::Arc::new(flag()), std::sync::Arc::new(flag()));
            let (told_taken, told_go) = (taken.clone(), go.clone());
            let mutex = &mutex;
            let holder = crew.spawn(move || {
                let mut guard = mutex.lock().unwrap();
                raise(&told_taken);
                crate::cast::eventually(|| is_up(&told_go));
                *guard = 5;
                panic();
            });
            crate::cast::eventually(|| is_up(&taken));
            let waiting = [(); 3].map(|()| {
                crew.spawn_waiting(|| match mutex.lock() {
                    Ok(_) => panic!("it was not told"),
                    Err(told) => *told.into_inner(),
                })
            });
            assert!(!mutex.is_poisoned());
            raise(&go);
            assert!(holder.outcome().is_err());
            assert_eq!(waiting.map(|w| w.join()), [5; 3]);
            assert!(mutex.is_poisoned());
        });
    }

    fn a_poisoned_lock_is_so_for_everybody_until_it_is_cleared(cast) {
        let mut mutex = poisoned(cast, 3);
        cast.scope(|crew| {
            join_all(crew.spawn_all(4, |_| {
                assert!(mutex.is_poisoned());
                assert_eq!(*mutex.lock().unwrap_err().into_inner(), 3);
                match mutex.try_lock() {
                    Err(TryLockError::Poisoned(error)) => assert_eq!(**error.get_ref(), 3),
                    // Another one has it.
                    Err(TryLockError::WouldBlock) => {}
                    Ok(_) => panic!("it was not told"),
                };
            }));
        });
        assert_eq!(*mutex.get_mut().unwrap_err().into_inner(), 3);
        mutex.clear_poison();
        cast.scope(|crew| {
            join_all(crew.spawn_all(4, |_| {
                assert!(!mutex.is_poisoned());
                assert_eq!(*mutex.lock().unwrap(), 3);
            }));
        });
        assert_eq!(mutex.into_inner().unwrap(), 3);
        assert_eq!(poisoned(cast, 4).into_inner().unwrap_err().into_inner(), 4);
    }

    fn a_lock_taken_and_freed_while_a_panic_is_underway_is_not_poisoned(cast) {
        /// Takes the lock while unwinding, and waits for it if it must.
        struct Unwinding<'a>(&'a Mutex<u32>);

        impl Drop for Unwinding<'_> {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                let mut guard: MutexGuard<'_, u32> = self.0.lock().unwrap();
                std::thread::yield_now();
                *guard += 1;
            }
        }

        let mutex = Mutex::new(0);
        cast.scope(|crew| {
            let unwinding = crew.spawn_all(5, |_| {
                panics(|| {
                    let _unwinding = Unwinding(&mutex);
                    panic();
                })
            });
            assert_eq!(join_all(unwinding), [true; 5]);
        });
        assert_eq!(mutex.into_inner().unwrap(), 5);
    }

    fn only_the_panic_of_the_holder_poisons(cast) {
        let mutex = Mutex::new(());
        cast.scope(|crew| {
            let bystander = crew.spawn(|| {
                drop(mutex.lock().unwrap());
                panic();
            });
            assert!(bystander.outcome().is_err());
            let guard = mutex.lock().unwrap();
            assert!(crew.spawn(|| panic()).outcome().is_err());
            drop(guard);
        });
        assert!(!mutex.is_poisoned());
    }

    fn locks_taken_in_one_order_hand_over_hand_do_not_deadlock(cast) {
        let locks: Vec<_> = (0..8).map(|_| Mutex::new(0)).collect();
        cast.scope(|crew| {
            crew.spawn_all(6, |_| {
                for _ in 0..30 {
                    let mut before = locks[0].lock().unwrap();
                    for lock in &locks[1..] {
                        *before += 1;
                        before = lock.lock().unwrap();
                    }
                    *before += 1;
                }
            });
        });
        assert!(locks.into_iter().all(|l| l.into_inner().unwrap() == 180));
    }

    fn philosophers_dine(cast) {
        const PLACES: usize = 5;
        let forks: Vec<_> = (0..PLACES).map(|_| Mutex::new(())).collect();
        let meals = AtomicUsize::new(0);
        cast.scope(|crew| {
            let (forks, meals) = (&forks, &meals);
            crew.spawn_all(PLACES, move |place| {
                let (left, right) = (place, (place + 1) % PLACES);
                for _ in 0..50 {
                    let _first = forks[left.min(right)].lock().unwrap();
                    std::thread::yield_now();
                    let _second = forks[left.max(right)].lock().unwrap();
                    meals.fetch_add(1, SeqCst);
                }
            });
        });
        assert_eq!(meals.into_inner(), 50 * PLACES);
    }

    fn a_destructor_of_a_thread_local_may_wait_for_a_lock(cast) {
        struct AtEnd(std::cell::Cell<Option<&'static Mutex<u32>>>);

        impl Drop for AtEnd {
            fn drop(&mut self) {
                if let Some(mutex) = self.0.get() {
                    *mutex.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
            }
        }

        thread_local! {
            static AT_END: AtEnd = const { AtEnd(std::cell::Cell::new(None)) };
        }

        let mutex: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
        cast.scope(|crew| {
            let guard = mutex.lock().unwrap();
            crew.spawn_all(4, move |_| AT_END.with(|at_end| at_end.0.set(Some(mutex))));
            a_moment();
            assert_eq!(*guard, 0);
        });
        // A scope of OS threads does not wait for the destructors.
        crate::cast::eventually(|| *mutex.lock().unwrap() == 4);
    }
}
