//! A green thread that waits leaves its worker, by itself: with one worker, others run meanwhile, and no monitor has
//! to help.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use uthread::Runtime;

use crate::cast::eventually;
use crate::watchdog::watched;

/// What waits, and what ends that.
struct Pair {
    waits: Box<dyn FnOnce() + Send>,
    ends: Box<dyn FnOnce() + Send>,
    /// Green threads that wait, this one included.
    waiting: usize,
}

fn pair(waits: impl FnOnce() + Send + 'static, ends: impl FnOnce() + Send + 'static) -> Pair {
    Pair { waits: Box::new(waits), ends: Box::new(ends), waiting: 1 }
}

/// Times that a kind of wait may be played until nobody else of the process makes a thread wait in the kernel, too.
const ATTEMPTS: usize = 5;

/// Plays with one worker: one thread waits, another runs a while and ends that.
fn alone_on_a_worker(prepare: fn() -> Pair) {
    if !uthread::interposed() {
        return;
    }
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let unaided = (0..ATTEMPTS).any(|_| {
        let before = runtime.stats();
        watched(&runtime, || {
            runtime.run(|| {
                let Pair { waits, ends, waiting: n } = prepare();
                let others = AtomicUsize::new(0);
                uthread::scope(|s| {
                    let waiting = s.spawn(waits);
                    eventually(|| {
                        let threads = uthread::threads().unwrap();
                        threads
                            .iter()
                            .filter(|t| t.state.reason() == Some(uthread::WaitReason::Futex))
                            .count()
                            == n
                    });
                    s.spawn(|| (0..10).for_each(|_| _ = others.fetch_add(1, SeqCst)));
                    eventually(|| others.load(SeqCst) == 10);
                    assert!(!waiting.is_finished());
                    s.spawn(ends);
                });
            });
        });
        let now = runtime.stats().since(&before);
        assert!(now.interposed > 0, "{now}");
        now.helper_moves == 0
    });
    assert!(unaided, "the monitor helps:\n{}", runtime.stats());
    assert_eq!(runtime.stats().helpers, 0);
}

macro_rules! alone {
    ($(fn $name:ident() $body:block)+) => {
        $(
            #[test]
            fn $name() {
                alone_on_a_worker(|| $body);
            }
        )+
    };
}

/// A thread that is parked, and what unparks it.
fn parked(park: fn()) -> Pair {
    let handle = Arc::new(OnceLock::new());
    let theirs = handle.clone();
    let waits = move || {
        theirs.set(thread::current()).unwrap();
        park();
    };
    pair(waits, move || thread::Thread::unpark(handle.get().unwrap()))
}

/// Something that is taken by a thread that waits for a message with it in hand; who waits for it; and what sends the
/// message. Two wait, and only the second for what is tested.
fn taken<T: Send + Sync + 'static>(
    shared: T,
    take: fn(&T, mpsc::Receiver<()>),
    wait: fn(&T),
) -> Pair {
    let shared = Arc::new(shared);
    let (sender, receiver) = mpsc::channel();
    let theirs = shared.clone();
    let holder = uthread::spawn(move || take(&theirs, receiver));
    uthread::yield_now();
    let ends = move || {
        sender.send(()).unwrap();
        holder.join().unwrap();
    };
    Pair { waiting: 2, ..pair(move || wait(&shared), ends) }
}

alone! {
    fn for_a_mutex() {
        taken(
            Mutex::new(()),
            |mutex, until| {
                let _guard = mutex.lock();
                until.recv().unwrap();
            },
            |mutex| drop(mutex.lock()),
        )
    }

    fn to_read() {
        taken(
            RwLock::new(()),
            |lock, until| {
                let _guard = lock.write();
                until.recv().unwrap();
            },
            |lock| drop(lock.read()),
        )
    }

    fn to_write() {
        taken(
            RwLock::new(()),
            |lock, until| {
                let _guard = lock.read();
                until.recv().unwrap();
            },
            |lock| drop(lock.write()),
        )
    }

    fn for_an_initialisation() {
        taken(
            Once::new(),
            |once, until| once.call_once(|| until.recv().unwrap()),
            |once| once.call_once(|| unreachable!()),
        )
    }

    fn for_a_lazy_value() {
        static UNTIL: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
        taken(
            LazyLock::<()>::new(|| {
                let until = UNTIL.lock().unwrap().take().unwrap();
                until.recv().unwrap();
            }),
            |lazy, until| {
                *UNTIL.lock().unwrap() = Some(until);
                LazyLock::force(lazy);
            },
            |lazy| _ = LazyLock::force(lazy),
        )
    }

    fn for_a_condition() {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = shared.clone();
        let waits = move || drop(theirs.1.wait_while(theirs.0.lock().unwrap(), |so| !*so));
        pair(waits, move || {
            *shared.0.lock().unwrap() = true;
            shared.1.notify_one();
        })
    }

    fn for_a_condition_or_a_time() {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = shared.clone();
        let waits = move || {
            let time = Duration::from_secs(1000);
            drop(theirs.1.wait_timeout_while(theirs.0.lock().unwrap(), time, |so| !*so));
        };
        pair(waits, move || {
            *shared.0.lock().unwrap() = true;
            shared.1.notify_all();
        })
    }

    fn at_a_barrier() {
        let barrier = Arc::new(Barrier::new(2));
        let theirs = barrier.clone();
        pair(move || _ = theirs.wait(), move || _ = barrier.wait())
    }

    fn for_a_cell() {
        let cell = Arc::new(OnceLock::new());
        let theirs = cell.clone();
        pair(move || _ = theirs.wait(), move || cell.set(1).unwrap())
    }

    fn for_a_message() {
        let (sender, receiver) = mpsc::channel();
        pair(move || receiver.recv().unwrap(), move || sender.send(()).unwrap())
    }

    fn for_a_message_or_a_time() {
        let (sender, receiver) = mpsc::channel();
        let waits = move || receiver.recv_timeout(Duration::from_secs(1000)).unwrap();
        pair(waits, move || sender.send(()).unwrap())
    }

    fn for_the_end_of_all_senders() {
        let (sender, receiver) = mpsc::channel::<()>();
        pair(move || assert!(receiver.recv().is_err()), move || drop(sender))
    }

    fn for_room_in_a_channel() {
        let (sender, receiver) = mpsc::sync_channel(1);
        sender.send(1).unwrap();
        pair(move || sender.send(2).unwrap(), move || assert!(receiver.into_iter().eq([1, 2])))
    }

    fn for_a_receiver() {
        let (sender, receiver) = mpsc::sync_channel(0);
        pair(move || sender.send(2).unwrap(), move || assert_eq!(receiver.recv(), Ok(2)))
    }

    fn for_a_token() {
        parked(thread::park)
    }

    fn for_a_token_or_a_time() {
        parked(|| thread::park_timeout(Duration::from_secs(1000)))
    }

    fn for_the_threads_of_a_scope() {
        let (sender, receiver) = mpsc::channel();
        let waits = move || {
            thread::scope(|s| {
                s.spawn(move || receiver.recv().unwrap());
            });
        };
        pair(waits, move || sender.send(()).unwrap())
    }

    fn for_a_lock_of_parking_lot() {
        taken(
            parking_lot::Mutex::new(()),
            |mutex, until| {
                let _guard = mutex.lock();
                until.recv().unwrap();
            },
            |mutex| drop(mutex.lock()),
        )
    }

    fn to_write_what_parking_lot_guards() {
        taken(
            parking_lot::RwLock::new(()),
            |lock, until| {
                let _guard = lock.read();
                until.recv().unwrap();
            },
            |lock| drop(lock.write()),
        )
    }

    fn for_a_condition_of_parking_lot() {
        let shared = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
        let theirs = shared.clone();
        let waits = move || theirs.1.wait_while(&mut theirs.0.lock(), |so| !*so);
        pair(waits, move || {
            *shared.0.lock() = true;
            shared.1.notify_one();
        })
    }

    fn for_a_message_by_crossbeam() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        pair(move || receiver.recv().unwrap(), move || sender.send(()).unwrap())
    }

    fn for_room_in_a_channel_of_crossbeam() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        sender.send(1).unwrap();
        pair(move || sender.send(2).unwrap(), move || assert!(receiver.into_iter().eq([1, 2])))
    }

    fn for_one_of_several_channels_of_crossbeam() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let (_never, other) = crossbeam_channel::bounded::<()>(0);
        let waits = move || {
            let _never = _never;
            crossbeam_channel::select! {
                recv(receiver) -> message => message.unwrap(),
                recv(other) -> _ => unreachable!(),
            }
        };
        pair(waits, move || sender.send(()).unwrap())
    }
}

#[test]
fn sleepers_and_yielders_let_others_run() {
    if !uthread::interposed() {
        return;
    }
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let unaided = (0..ATTEMPTS).any(|_| {
        let before = runtime.stats();
        watched(&runtime, || {
            runtime.run(|| {
                uthread::scope(|s| {
                    for _ in 0..20 {
                        s.spawn(|| thread::sleep(Duration::from_millis(5)));
                        s.spawn(|| (0..10).for_each(|_| thread::yield_now()));
                    }
                });
            });
        });
        let now = runtime.stats().since(&before);
        assert!(now.interposed >= 20 + 200, "{now}");
        now.helper_moves == 0
    });
    assert!(unaided, "the monitor helps:\n{}", runtime.stats());
}
