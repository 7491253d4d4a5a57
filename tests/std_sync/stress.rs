//! Everything at once, under slices that are as short as can be: locks, conditions, channels, tokens and times, used by
//! green threads of two workers and by OS threads in an order that depends on a seed, which a failure tells.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Barrier, Condvar, Mutex, OnceLock, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;

use uthread::Runtime;

use crate::cast::{Cast, Room};
use crate::watchdog::watched;

/// How often each participant does something.
const STEPS: usize = 60;
const MEMBERS: usize = 8;
/// Of all participants, the things that they do.
const TOTAL: usize = MEMBERS * STEPS;

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// What participants share. Every kind of thing balances in the end.
struct World {
    mutexes: [(Mutex<usize>, Room); 3],
    table: (RwLock<[usize; 3]>, Room),
    /// Tokens: whoever takes one has put one in before.
    pot: (Mutex<usize>, Condvar),
    channel: (SyncSender<usize>, Mutex<Receiver<usize>>),
    sent: AtomicUsize,
    received: AtomicUsize,
    lazy: [OnceLock<usize>; STEPS],
    initialised: AtomicUsize,
    handles: Mutex<Vec<Thread>>,
    barrier: Barrier,
}

impl World {
    fn new() -> World {
        let (sender, receiver) = sync_channel(2);
        World {
            mutexes: Default::default(),
            table: Default::default(),
            pot: Default::default(),
            channel: (sender, Mutex::new(receiver)),
            sent: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            lazy: [const { OnceLock::new() }; STEPS],
            initialised: AtomicUsize::new(0),
            handles: Mutex::default(),
            barrier: Barrier::new(MEMBERS),
        }
    }

    /// One participant.
    fn play(&self, mut random: Random) {
        self.handles.lock().unwrap().push(thread::current());
        self.barrier.wait();
        for step in 0..STEPS {
            match random.below(9) {
                0 | 1 => self.lock(random.below(3), random.below(200)),
                2 => self.read(),
                3 => self.write(),
                4 => self.put_and_take(random.below(150)),
                5 => self.send(random.below(100), random.below(100)),
                6 => self.initialise(step),
                7 => self.unpark(random.below(MEMBERS), random.below(80)),
                _ if random.below(2) == 0 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(random.below(60) as u64)),
            }
            if step % (STEPS / 3) == 0 {
                self.barrier.wait();
            }
        }
    }

    /// Computes in some of the critical sections, so as to be interrupted there.
    fn compute(for_how_long: usize) {
        (0..for_how_long).for_each(|n| _ = std::hint::black_box(n));
    }

    fn lock(&self, which: usize, for_how_long: usize) {
        let (mutex, room) = &self.mutexes[which];
        let mut visits = mutex.lock().unwrap();
        Self::compute(for_how_long);
        room.visit_alone();
        *visits += 1;
    }

    fn read(&self) {
        let table = self.table.0.read().unwrap();
        let seen = *table;
        Self::compute(100);
        assert!(*table == seen && seen == [seen[0]; 3]);
    }

    fn write(&self) {
        let mut table = self.table.0.write().unwrap();
        self.table.1.visit_alone();
        for n in table.iter_mut() {
            *n += 1;
            Self::compute(30);
        }
    }

    fn put_and_take(&self, microseconds: usize) {
        let (pot, changed) = &self.pot;
        *pot.lock().unwrap() += 1;
        changed.notify_one();
        let is_empty = |n: &mut usize| *n == 0;
        let time = Duration::from_micros(microseconds as u64);
        let wait = changed.wait_timeout_while(pot.lock().unwrap(), time, is_empty);
        let (mut tokens, result) = wait.unwrap();
        if result.timed_out() {
            // There are as many tokens as takers: without a limit it gets one.
            tokens = changed.wait_while(tokens, is_empty).unwrap();
        }
        *tokens -= 1;
    }

    fn send(&self, value: usize, microseconds: usize) {
        let (sender, receiver) = &self.channel;
        if sender.try_send(value).is_ok() {
            self.sent.fetch_add(value, SeqCst);
        }
        let time = Duration::from_micros(microseconds as u64);
        if let Ok(value) = receiver.lock().unwrap().recv_timeout(time) {
            self.received.fetch_add(value, SeqCst);
        }
    }

    fn initialise(&self, which: usize) {
        let value = self.lazy[which].get_or_init(|| {
            self.initialised.fetch_add(1, SeqCst);
            thread::yield_now();
            which
        });
        assert_eq!(*value, which);
    }

    fn unpark(&self, whom: usize, microseconds: usize) {
        self.handles.lock().unwrap()[whom].unpark();
        thread::park_timeout(Duration::from_micros(microseconds as u64));
    }

    /// After the end of all participants.
    fn balance(self) {
        let mut visits = 0;
        for (mutex, room) in self.mutexes {
            assert_eq!(mutex.into_inner().unwrap(), room.visits());
            visits += room.visits();
        }
        assert!(visits <= TOTAL);
        assert_eq!(self.table.0.into_inner().unwrap(), [self.table.1.visits(); 3]);
        assert_eq!(self.pot.0.into_inner().unwrap(), 0);
        let left: usize = self.channel.1.into_inner().unwrap().try_iter().sum();
        assert_eq!(self.sent.into_inner(), self.received.into_inner() + left);
        let lazy = self.lazy.iter().filter(|l| l.get().is_some()).count();
        assert_eq!(self.initialised.into_inner(), lazy);
    }
}

/// Tells the seed if a participant panics, for which others may then wait.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            // Not a macro: what those print is kept by the harness, and lost if the watchdog ends the process.
            let _ = writeln!(std::io::stderr(), "with seed {}", self.0);
        }
    }
}

/// Plays with all seeds.
fn all_at_once(cast: Cast, seeds: std::ops::Range<u64>) {
    let runtime = Runtime::builder().workers(2).slice(Duration::from_micros(50)).build().unwrap();
    if !uthread::interposed() && runtime.preemption().is_err() {
        return;
    }
    watched(&runtime, || {
        for seed in seeds {
            let world = World::new();
            let play = || {
                cast.scope(|crew| {
                    let world = &world;
                    crew.spawn_all(MEMBERS, move |i| {
                        let _told = Told(seed);
                        world.play(Random(seed << 8 | i as u64));
                    });
                });
            };
            if cast == Cast::Os {
                play()
            } else {
                runtime.run(play)
            }
            let _told = Told(seed);
            world.balance();
        }
    });
}

#[test]
fn green_threads_do_everything_at_once() {
    all_at_once(Cast::Green(2), 0..8);
}

#[test]
fn green_and_os_threads_do_everything_at_once() {
    all_at_once(Cast::Mixed(2, true), 100..108);
}

#[test]
fn os_and_green_threads_do_everything_at_once() {
    all_at_once(Cast::Mixed(2, false), 200..208);
}

#[test]
fn os_threads_do_everything_at_once() {
    all_at_once(Cast::Os, 300..304);
}
