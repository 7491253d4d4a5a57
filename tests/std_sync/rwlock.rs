//! `RwLock`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, RwLock, RwLockWriteGuard, TryLockError};

use crate::cast::{Cast, Room, eventually, flag, is_up, join_all, panic, raise};

/// Of which one holder panicked, a participant.
fn after_a_panic(cast: Cast, writes: bool) -> RwLock<u32> {
    let lock = RwLock::new(3);
    cast.scope(|crew| {
        let panics = crew.spawn(|| {
            if writes {
                let _guard = lock.write();
                panic();
            }
            let _guard = lock.read();
            panic();
        });
        assert!(panics.outcome().is_err());
    });
    lock
}

scenarios! {
    fn readers_are_inside_together(cast) {
        let (lock, meeting) = (RwLock::new(()), Barrier::new(5));
        cast.scope(|crew| {
            crew.spawn_all(5, |_| {
                let _guard = lock.read().unwrap();
                meeting.wait();
            });
        });
    }

    fn a_writer_waits_until_all_readers_have_left(cast) {
        let lock = RwLock::new(1);
        cast.scope(|crew| {
            let (first, second) = (lock.read().unwrap(), lock.read().unwrap());
            let writer = crew.spawn_waiting(|| *lock.write().unwrap() += 1);
            drop(first);
            crate::cast::a_moment();
            assert!(!writer.is_finished());
            assert_eq!(*second, 1);
            drop(second);
            writer.join();
        });
        assert_eq!(lock.into_inner().unwrap(), 2);
    }

    fn readers_and_writers_wait_for_a_writer(cast) {
        let lock = RwLock::new(0);
        cast.scope(|crew| {
            let mut guard = lock.write().unwrap();
            let readers = [(); 3].map(|()| crew.spawn_waiting(|| assert!(*lock.read().unwrap() >= 7)));
            let writers = [(); 2].map(|()| crew.spawn_waiting(|| *lock.write().unwrap() += 1));
            *guard = 7;
            drop(guard);
            readers.into_iter().chain(writers).for_each(|member| member.join());
        });
        assert_eq!(lock.into_inner().unwrap(), 9);
    }

    fn trying_does_not_wait(cast) {
        let lock = RwLock::new(1);
        let tries = |can_read, can_write| {
            let lock = &lock;
            move || {
                let read = lock.try_read();
                assert_eq!(read.is_ok(), can_read);
                assert!(can_read || matches!(read, Err(TryLockError::WouldBlock)));
                drop(read);
                let write = lock.try_write();
                assert_eq!(write.is_ok(), can_write);
                assert!(can_write || matches!(write, Err(TryLockError::WouldBlock)));
            }
        };
        cast.scope(|crew| {
            for _ in 0..2 {
                let guard = lock.write().unwrap();
                crew.spawn(tries(false, false)).join();
                drop(guard);
                let guard = lock.read().unwrap();
                crew.spawn(tries(true, false)).join();
                drop(guard);
                crew.spawn(tries(true, true)).join();
            }
        });
    }

    fn a_writer_is_alone_and_readers_see_what_it_did(cast) {
        let (lock, room) = (RwLock::new([0; 4]), Room::default());
        cast.scope(|crew| {
            let (lock, room) = (&lock, &room);
            crew.spawn_all(6, move |i| {
                for n in 0..200 {
                    if (n + i).is_multiple_of(4) {
                        let mut guard = lock.write().unwrap();
                        let next = guard[0] + 1;
                        room.visit_alone();
                        *guard = [next; 4];
                    } else {
                        let guard = lock.read().unwrap();
                        let seen = *guard;
                        std::thread::yield_now();
                        assert_eq!(*guard, seen);
                        assert_eq!(seen, [seen[0]; 4]);
                    }
                }
            });
        });
        assert_eq!(lock.into_inner().unwrap(), [room.visits(); 4]);
        assert_eq!(room.visits(), 300);
    }

    fn a_writer_that_becomes_a_reader_lets_readers_in(cast) {
        let lock = RwLock::new(0);
        cast.scope(|crew| {
            let mut guard = lock.write().unwrap();
            let readers = [(); 3].map(|()| crew.spawn_waiting(|| *lock.read().unwrap()));
            *guard = 4;
            let guard = RwLockWriteGuard::downgrade(guard);
            assert_eq!(readers.map(|r| r.join()), [4; 3]);
            assert!(lock.try_write().is_err());
            drop(guard);
        });
    }

    fn no_writer_comes_between_a_writer_and_the_reader_that_it_becomes(cast) {
        let lock = RwLock::new(0);
        cast.scope(|crew| {
            crew.spawn_all(5, |_| {
                for _ in 0..100 {
                    let mut guard = lock.write().unwrap();
                    *guard += 1;
                    let mine = *guard;
                    let guard = RwLockWriteGuard::downgrade(guard);
                    std::thread::yield_now();
                    assert_eq!(*guard, mine);
                }
            });
        });
        assert_eq!(lock.into_inner().unwrap(), 500);
    }

    fn a_writer_waits_for_one_that_became_a_reader(cast) {
        let lock = RwLock::new(0);
        cast.scope(|crew| {
            let guard = RwLockWriteGuard::downgrade(lock.write().unwrap());
            let writer = crew.spawn_waiting(|| *lock.write().unwrap() = 1);
            assert_eq!(*guard, 0);
            drop(guard);
            writer.join();
        });
        assert_eq!(lock.into_inner().unwrap(), 1);
    }

    fn a_writer_that_panics_poisons(cast) {
        let mut lock = after_a_panic(cast, true);
        cast.scope(|crew| {
            join_all(crew.spawn_all(4, |i| {
                assert!(lock.is_poisoned());
                assert_eq!(*lock.read().unwrap_err().into_inner(), 3);
                if i == 0 {
                    assert_eq!(*lock.write().unwrap_err().into_inner(), 3);
                }
                assert!(lock.try_read().is_err());
                assert!(lock.try_write().is_err());
            }));
        });
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        assert_eq!(*lock.get_mut().unwrap_err().into_inner(), 3);
        lock.clear_poison();
        cast.scope(|crew| assert_eq!(crew.spawn(|| *lock.write().unwrap()).join(), 3));
        assert!(!lock.is_poisoned());
        assert!(after_a_panic(cast, true).into_inner().is_err());
    }

    fn a_reader_that_panics_does_not_poison(cast) {
        let lock = after_a_panic(cast, false);
        cast.scope(|crew| {
            assert_eq!(crew.spawn(|| *lock.read().unwrap()).join(), 3);
            assert_eq!(crew.spawn(|| *lock.write().unwrap()).join(), 3);
        });
        assert!(!lock.is_poisoned());
    }

    fn those_who_wait_for_a_writer_that_panics_are_told(cast) {
        let (lock, taken, go) = (RwLock::new(0), Arc::new(flag()), Arc::new(flag()));
        cast.scope(|crew| {
            let holder = crew.spawn(|| {
                let _guard = lock.write();
                raise(&taken);
                eventually(|| is_up(&go));
                panic();
            });
            eventually(|| is_up(&taken));
            let readers = [(); 2].map(|()| crew.spawn_waiting(|| lock.read().is_err()));
            let writers = [(); 2].map(|()| crew.spawn_waiting(|| lock.write().is_err()));
            raise(&go);
            assert!(holder.outcome().is_err());
            assert!(readers.into_iter().chain(writers).all(|member| member.join()));
        });
    }

    fn waiting_writers_all_get_their_turn(cast) {
        let (lock, turns) = (RwLock::new(()), AtomicUsize::new(0));
        cast.scope(|crew| {
            let guard = lock.read().unwrap();
            crew.spawn_all(8, |_| {
                let _guard = lock.write().unwrap();
                turns.fetch_add(1, SeqCst);
            });
            crate::cast::a_moment();
            assert_eq!(turns.load(SeqCst), 0);
            drop(guard);
        });
        assert_eq!(turns.into_inner(), 8);
    }
}
