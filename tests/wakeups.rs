//! No wake-up is lost, and none is made up.
//!
//! Every scenario is played in runtimes with one and with several workers, with and without thread
//! blocks. One that hangs is ended by the watchdog, with the runtime's counters.

#[path = "common/watchdog.rs"]
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use uthread::{Runtime, Thread};
use watchdog::watched;

/// Plays a scenario on an OS thread, for each kind of runtime.
fn in_each_runtime(scenario: impl Fn(&Runtime)) {
    for (workers, thread_blocks) in [(1, true), (4, true), (1, false), (4, false)] {
        let builder = Runtime::builder().workers(workers).thread_blocks(thread_blocks);
        let runtime = builder.build().unwrap();
        watched(&runtime, || scenario(&runtime));
    }
}

/// Plays a scenario on a green thread, for each kind of runtime.
fn on_green_threads(scenario: impl Fn() + Sync) {
    in_each_runtime(|runtime| runtime.run(&scenario));
}

/// Parks until it is so.
fn park_until(condition: impl Fn() -> bool) {
    while !condition() {
        uthread::park();
    }
}

/// Whose turn it is, among players that park while it is not theirs.
#[derive(Default)]
struct Turn(AtomicUsize);

impl Turn {
    fn wait(&self, own: usize) {
        park_until(|| self.0.load(SeqCst) == own);
    }

    fn pass(&self, next: usize, player: &Thread) {
        self.0.store(next, SeqCst);
        player.unpark();
    }
}

/// One of two players of `rounds` rounds.
fn play(turn: &Turn, own: usize, opponent: &Thread, rounds: usize) {
    for _ in 0..rounds {
        turn.wait(own);
        turn.pass(1 - own, opponent);
    }
}

mod unparking {
    use super::*;

    #[test]
    fn pairs_take_turns() {
        on_green_threads(|| {
            uthread::scope(|s| {
                for _ in 0..20 {
                    s.spawn(|| {
                        let turn = Turn::default();
                        let first = uthread::current();
                        uthread::scope(|s| {
                            let second = s.spawn(|| play(&turn, 1, &first, 500));
                            play(&turn, 0, second.thread(), 500);
                        });
                    });
                }
            });
        });
    }

    #[test]
    fn a_token_goes_round_rings_of_a_hundred_threads() {
        const PLAYERS: usize = 100;
        const LAPS: usize = 50;
        on_green_threads(|| {
            uthread::scope(|s| {
                for _ring in 0..2 {
                    s.spawn(|| {
                        let turn = Turn::default();
                        let first = uthread::current();
                        uthread::scope(|s| {
                            let turn = &turn;
                            let mut next = first.clone();
                            // From the last to the second: each knows the one after it.
                            for player in (1..PLAYERS).rev() {
                                let after = next;
                                let spawned = s.spawn(move || {
                                    for _ in 0..LAPS {
                                        turn.wait(player);
                                        turn.pass((player + 1) % PLAYERS, &after);
                                    }
                                });
                                next = spawned.thread().clone();
                            }
                            for _ in 0..LAPS {
                                turn.wait(0);
                                turn.pass(1, &next);
                            }
                            turn.wait(0);
                        });
                    });
                }
            });
        });
    }

    #[test]
    fn os_and_green_threads_take_turns() {
        in_each_runtime(|runtime| {
            let pair = || {
                let turn = Turn::default();
                let os = uthread::current();
                std::thread::scope(|s| {
                    // The handle comes through the scope's OS thread: `run` gives none.
                    let (send, receive) = std::sync::mpsc::channel();
                    let turn = &turn;
                    s.spawn(move || {
                        runtime.run(move || {
                            send.send(uthread::current()).unwrap();
                            play(turn, 1, &os, 300);
                        });
                    });
                    let green = receive.recv().unwrap();
                    play(turn, 0, &green, 300);
                });
            };
            std::thread::scope(|s| {
                for _ in 0..3 {
                    s.spawn(pair);
                }
            });
        });
    }

    #[test]
    fn os_threads_take_turns() {
        let turn = Turn::default();
        let first = uthread::current();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|s| {
            s.spawn(|| {
                send.send(uthread::current()).unwrap();
                play(&turn, 1, &first, 300);
            });
            play(&turn, 0, &receive.recv().unwrap(), 300);
        });
    }

    #[test]
    fn many_threads_wake_one_and_nothing_is_lost() {
        const WAKERS: usize = 50;
        const ROUNDS: usize = 100;
        on_green_threads(|| {
            let count = AtomicUsize::new(0);
            let sleeper = uthread::current();
            uthread::scope(|s| {
                for _ in 0..WAKERS {
                    s.spawn(|| {
                        for round in 0..ROUNDS {
                            count.fetch_add(1, SeqCst);
                            sleeper.unpark();
                            if round % 8 == 0 {
                                uthread::yield_now();
                            }
                        }
                    });
                }
                park_until(|| count.load(SeqCst) == WAKERS * ROUNDS);
            });
        });
    }

    #[test]
    fn threads_of_two_runtimes_take_turns() {
        in_each_runtime(|one| {
            let other = Runtime::builder().workers(2).build().unwrap();
            let turn = Arc::new(Turn::default());
            let theirs = turn.clone();
            one.run(move || {
                let first = uthread::current();
                let second = other.spawn(move || play(&theirs, 1, &first, 500));
                play(&turn, 0, second.thread(), 500);
                second.join().unwrap();
            });
        });
    }

    #[test]
    fn a_thread_that_has_ended_may_be_unparked() {
        on_green_threads(|| {
            let threads: Vec<Thread> = (0..100)
                .map(|_| {
                    let thread = uthread::spawn(uthread::yield_now);
                    let handle = thread.thread().clone();
                    handle.unpark();
                    thread.join().unwrap();
                    handle
                })
                .collect();
            threads.iter().for_each(Thread::unpark);
        });
    }
}

mod timeouts {
    use super::*;

    const SHORT: Duration = Duration::from_micros(50);

    #[test]
    fn race_with_unpark_and_neither_is_lost() {
        on_green_threads(|| {
            uthread::scope(|s| {
                for pair in 0..20 {
                    s.spawn(move || race(pair));
                }
            });
        });
    }

    /// One thread waits with time-outs that expire about when it is unparked.
    fn race(pair: u32) {
        const ROUNDS: usize = 100;
        let ready = AtomicBool::new(false);
        let waker_go_on = AtomicUsize::new(0);
        let sleeper = uthread::current();
        uthread::scope(|s| {
            let waker = s.spawn(|| {
                for round in 0..ROUNDS {
                    park_until(|| waker_go_on.load(SeqCst) > round);
                    if round % 2 == 0 {
                        uthread::sleep(SHORT * (pair % 3));
                    }
                    ready.store(true, SeqCst);
                    sleeper.unpark();
                }
            });
            for round in 0..ROUNDS {
                waker_go_on.store(round + 1, SeqCst);
                waker.thread().unpark();
                while !ready.swap(false, SeqCst) {
                    uthread::park_timeout(SHORT);
                }
                // Were something left over that wakes, it would end this too early.
                sleep_and_check(SHORT);
            }
        });
    }

    fn sleep_and_check(time: Duration) {
        let began = Instant::now();
        uthread::sleep(time);
        assert!(began.elapsed() >= time, "slept {:?} instead of {time:?}", began.elapsed());
    }

    #[test]
    fn expire_for_all_of_many_sleepers_and_never_early() {
        on_green_threads(|| {
            uthread::scope(|s| {
                for i in 0..500 {
                    s.spawn(move || {
                        for round in 0..5 {
                            sleep_and_check(Duration::from_micros((i * 37 + round * 11) % 2000));
                        }
                    });
                }
            });
        });
    }

    #[test]
    fn of_zero_and_of_ages_are_taken() {
        on_green_threads(|| {
            uthread::sleep(Duration::ZERO);
            uthread::park_timeout(Duration::ZERO);
            uthread::current().unpark();
            uthread::park_timeout(Duration::MAX);
            let parked = uthread::spawn(|| uthread::park_timeout(Duration::MAX));
            uthread::yield_now();
            parked.thread().unpark();
            parked.join().unwrap();
        });
    }

    #[test]
    fn of_os_threads_race_with_unparks_by_green_ones() {
        in_each_runtime(|runtime| {
            let os = uthread::current();
            for round in 0..200 {
                let ready = Arc::new(AtomicBool::new(false));
                let (theirs, os) = (ready.clone(), os.clone());
                let waker = runtime.spawn(move || {
                    if round % 2 == 0 {
                        uthread::sleep(SHORT);
                    }
                    theirs.store(true, SeqCst);
                    os.unpark();
                });
                while !ready.load(SeqCst) {
                    uthread::park_timeout(SHORT);
                }
                waker.join().unwrap();
            }
        });
    }
}

mod tokens {
    use super::*;
    use std::io::{Read, Write};
    use uthread::net::{TcpListener, TcpStream};

    /// Enough to be told from no wait at all.
    const WAIT: Duration = Duration::from_millis(5);

    /// Plays a scenario on green threads of each kind, and on an OS thread.
    fn on_green_and_os_threads(scenario: impl Fn() + Sync) {
        on_green_threads(&scenario);
        std::thread::scope(|s| s.spawn(&scenario).join().unwrap());
    }

    fn has_token() -> bool {
        let began = Instant::now();
        uthread::park_timeout(WAIT);
        began.elapsed() < WAIT
    }

    #[test]
    fn may_come_before_the_wait() {
        on_green_and_os_threads(|| {
            uthread::current().unpark();
            uthread::park();
        });
    }

    #[test]
    fn of_two_announcements_are_one() {
        on_green_and_os_threads(|| {
            uthread::current().unpark();
            uthread::current().unpark();
            uthread::park();
            assert!(!has_token());
        });
    }

    fn join_something() {
        let slow = uthread::spawn(|| uthread::sleep(Duration::from_micros(200)));
        slow.join().unwrap();
    }

    fn end_a_scope() {
        uthread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| uthread::sleep(Duration::from_micros(200)));
            }
        });
    }

    fn sleep() {
        uthread::sleep(Duration::from_micros(200));
    }

    fn talk_over_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = uthread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            uthread::sleep(Duration::from_micros(200));
            stream.write_all(b"!").unwrap();
        });
        listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        client.join().unwrap();
    }

    const WAITS: [fn(); 4] = [join_something, end_a_scope, sleep, talk_over_a_socket];

    #[test]
    fn are_not_taken_by_other_waits() {
        on_green_and_os_threads(|| {
            for wait in WAITS {
                uthread::current().unpark();
                wait();
                uthread::park();
            }
        });
    }

    #[test]
    fn are_not_left_behind_by_other_waits() {
        on_green_and_os_threads(|| {
            for wait in WAITS {
                wait();
                assert!(!has_token());
            }
        });
    }

    #[test]
    fn that_come_during_other_waits_do_not_end_them() {
        on_green_and_os_threads(|| {
            let thread = uthread::current();
            for wait in WAITS {
                let over = AtomicBool::new(false);
                uthread::scope(|s| {
                    let waker = s.spawn(|| {
                        while !over.load(SeqCst) {
                            thread.unpark();
                            uthread::sleep(Duration::from_micros(50));
                        }
                    });
                    for _ in 0..5 {
                        wait();
                    }
                    let began = Instant::now();
                    uthread::sleep(WAIT);
                    assert!(began.elapsed() >= WAIT);
                    over.store(true, SeqCst);
                    waker.join().unwrap();
                });
            }
        });
    }

    #[test]
    fn pass_on_what_was_done_before() {
        on_green_threads(|| {
            for _ in 0..100 {
                let done = AtomicBool::new(false);
                let waiter = uthread::current();
                uthread::scope(|s| {
                    s.spawn(|| {
                        done.store(true, Relaxed);
                        waiter.unpark();
                    });
                    park_until(|| done.load(Relaxed));
                });
            }
        });
    }
}

mod joining {
    use super::*;

    fn tree(depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let children = [(); 2].map(|()| uthread::spawn(move || tree(depth - 1)));
        children.into_iter().map(|child| child.join().unwrap()).sum()
    }

    #[test]
    fn trees_of_threads_end() {
        on_green_threads(|| {
            for _ in 0..3 {
                assert_eq!(tree(9), 512);
            }
        });
    }

    #[test]
    fn from_green_and_os_threads_at_once_ends() {
        in_each_runtime(|runtime| {
            std::thread::scope(|s| {
                for i in 0..3 {
                    s.spawn(move || {
                        for round in 0..200 {
                            let number = move || {
                                uthread::yield_now();
                                i * round
                            };
                            assert_eq!(runtime.spawn(number).join().unwrap(), i * round);
                        }
                    });
                }
                s.spawn(|| assert_eq!(runtime.run(|| tree(8)), 256));
            });
        });
    }

    #[test]
    fn on_an_os_thread_by_green_threads_handles_ends() {
        in_each_runtime(|runtime| {
            // Handles move between green and OS threads before they are joined.
            let handles =
                runtime.run(|| (0..100).map(|i| uthread::spawn(move || i)).collect::<Vec<_>>());
            let mut numbers = handles.into_iter().map(|h| h.join().unwrap());
            assert!((0..100).all(|i| numbers.next() == Some(i)));

            let handles: Vec<_> = (0..100).map(|i| runtime.spawn(move || i)).collect();
            let sum: usize = runtime.run(|| handles.into_iter().map(|h| h.join().unwrap()).sum());
            assert_eq!(sum, 99 * 50);
        });
    }
}

mod fairness {
    use super::*;

    /// Keeps `threads` threads busy yielding while `scenario` runs.
    fn among_yielders(threads: usize, scenario: impl FnOnce()) {
        let over = AtomicBool::new(false);
        uthread::scope(|s| {
            for _ in 0..threads {
                s.spawn(|| {
                    while !over.load(Relaxed) {
                        uthread::yield_now();
                    }
                });
            }
            scenario();
            over.store(true, Relaxed);
        });
    }

    #[test]
    fn threads_that_yield_do_not_starve_new_ones() {
        on_green_threads(|| {
            among_yielders(8, || {
                for _ in 0..50 {
                    uthread::spawn(|| ()).join().unwrap();
                }
            });
        });
    }

    #[test]
    fn threads_that_yield_do_not_starve_those_spawned_from_outside() {
        in_each_runtime(|runtime| {
            let over = Arc::new(AtomicBool::new(false));
            let yielders: Vec<_> = (0..8)
                .map(|_| {
                    let over = over.clone();
                    runtime.spawn(move || {
                        while !over.load(Relaxed) {
                            uthread::yield_now();
                        }
                    })
                })
                .collect();
            for _ in 0..50 {
                runtime.spawn(|| ()).join().unwrap();
            }
            over.store(true, Relaxed);
            yielders.into_iter().for_each(|y| y.join().unwrap());
        });
    }

    #[test]
    fn sleepers_among_yielders_wake() {
        on_green_threads(|| {
            among_yielders(8, || {
                for _ in 0..20 {
                    uthread::sleep(Duration::from_micros(200));
                    uthread::park_timeout(Duration::from_micros(200));
                }
            });
        });
    }

    #[test]
    fn one_that_yields_alone_still_notices_timers_and_completions() {
        use std::io::{Read, Write};
        on_green_threads(|| {
            among_yielders(1, || {
                uthread::sleep(Duration::from_millis(1));
                let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let mut client = std::net::TcpStream::connect(address).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                let writer = uthread::spawn(move || {
                    uthread::sleep(Duration::from_millis(1));
                    client.write_all(b"!").unwrap();
                });
                server.read_exact(&mut [0]).unwrap();
                writer.join().unwrap();
            });
        });
    }

    /// How long a thread that never enters the runtime gives others, before it says that nobody came.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Computes until somebody says stop; whether somebody did.
    fn compute_until(stop: &AtomicBool) -> bool {
        let began = Instant::now();
        while !stop.load(Relaxed) && began.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        stop.load(Relaxed)
    }

    fn several_workers(thread_blocks: bool) -> Runtime {
        Runtime::builder().workers(4).thread_blocks(thread_blocks).build().unwrap()
    }

    /// Waits until all workers of a runtime sleep.
    fn let_fall_asleep(runtime: &Runtime) {
        // A worker that has nothing to do counts a sleep each time; one that looks around now and then
        // stops doing so when all sleep.
        let mut sleeps = runtime.stats().sleeps;
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = runtime.stats().sleeps;
            if now == sleeps {
                return;
            }
            sleeps = now;
        }
    }

    #[test]
    fn a_thread_behind_one_that_computes_is_taken_by_a_worker_that_slept() {
        let runtime = several_workers(true);
        watched(&runtime, || {
            for _ in 0..10 {
                let_fall_asleep(&runtime);
                let taken = runtime.run(|| {
                    let stop = AtomicBool::new(false);
                    uthread::scope(|s| {
                        let computing = s.spawn(|| compute_until(&stop));
                        uthread::yield_now();
                        stop.store(true, Relaxed);
                        computing.join().unwrap()
                    })
                });
                assert!(taken, "runnable and unserved while workers sleep: {}", runtime.stats());
            }
        });
    }

    /// A sleeping worker that looks around now and then may be given work of its own.
    #[test]
    fn a_thread_behind_one_that_computes_is_taken_when_who_looked_around_computes_too() {
        let runtime = several_workers(true);
        watched(&runtime, || {
            for _ in 0..20 {
                let_fall_asleep(&runtime);
                let [asked, begun, stop] = [const { AtomicBool::new(false) }; 3];
                let taken = std::thread::scope(|s| {
                    s.spawn(|| {
                        while !asked.load(SeqCst) {
                            std::thread::yield_now();
                        }
                        runtime.run(|| {
                            begun.store(true, SeqCst);
                            compute_until(&stop)
                        })
                    });
                    runtime.run(|| {
                        // One comes to look around, and does so less and less often.
                        uthread::spawn(|| ()).join().unwrap();
                        std::thread::sleep(Duration::from_millis(30));
                        uthread::scope(|s| {
                            let computing = s.spawn(|| compute_until(&stop));
                            asked.store(true, SeqCst);
                            while !begun.load(SeqCst) {
                                std::thread::yield_now();
                            }
                            uthread::yield_now();
                            stop.store(true, Relaxed);
                            computing.join().unwrap()
                        })
                    })
                });
                assert!(taken, "runnable and unserved while workers sleep: {}", runtime.stats());
            }
        });
    }

    #[test]
    fn new_threads_behind_one_that_computes_are_taken_without_thread_blocks_too() {
        let runtime = several_workers(false);
        watched(&runtime, || {
            for _ in 0..100 {
                let taken = runtime.run(|| {
                    let stop = AtomicBool::new(false);
                    uthread::scope(|s| {
                        let computing = s.spawn(|| compute_until(&stop));
                        let stopping = s.spawn(|| stop.store(true, Relaxed));
                        stopping.join().unwrap();
                        computing.join().unwrap()
                    })
                });
                assert!(taken, "runnable and unserved while workers sleep: {}", runtime.stats());
            }
        });
    }
}

mod mixture {
    use super::*;
    use std::io::{Read, Write};
    use uthread::net::{TcpListener, TcpStream};

    /// Numbers that look random, the same ones in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            // Xorshift (Marsaglia 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    fn echo(listener: &TcpListener, connections: usize) {
        uthread::scope(|s| {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                s.spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap());
            }
        });
    }

    #[test]
    fn of_all_waits_on_green_and_os_threads_ends() {
        const THREADS: usize = 60;
        const STEPS: usize = 60;
        in_each_runtime(|runtime| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = runtime.spawn(move || echo(&listener, THREADS));
            // A neighbour from outside that unparks whoever registers, as a busy program would.
            let registered: Arc<std::sync::Mutex<Vec<Thread>>> = Arc::default();
            let over = AtomicBool::new(false);
            std::thread::scope(|s| {
                s.spawn(|| {
                    while !over.load(SeqCst) {
                        let thread = registered.lock().unwrap().pop();
                        thread.map_or_else(std::thread::yield_now, |thread| thread.unpark());
                    }
                });
                let live = |seed: usize| {
                    let registered = registered.clone();
                    move || wait_in_every_way(seed as u64, STEPS, &registered, address)
                };
                let threads: Vec<_> = (0..THREADS).map(|i| runtime.spawn(live(i + 1))).collect();
                for thread in threads {
                    thread.join().unwrap();
                }
                over.store(true, SeqCst);
            });
            server.join().unwrap();
        });
    }

    fn wait_in_every_way(
        seed: u64,
        steps: usize,
        registered: &std::sync::Mutex<Vec<Thread>>,
        address: std::net::SocketAddr,
    ) {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut stream = TcpStream::connect(address).unwrap();
        for step in 0..steps {
            match numbers.below(7) {
                0 => uthread::yield_now(),
                1 => uthread::sleep(Duration::from_micros(numbers.below(200))),
                2 => uthread::park_timeout(Duration::from_micros(numbers.below(200))),
                3 => {
                    // Nobody else unparks this thread, but a time-out above may have left a token.
                    registered.lock().unwrap().push(uthread::current());
                    uthread::park();
                }
                4 => assert_eq!(uthread::spawn(move || step).join().unwrap(), step),
                5 => uthread::scope(|s| {
                    for _ in 0..3 {
                        s.spawn(uthread::yield_now);
                    }
                }),
                _ => {
                    let sent = [step as u8; 100];
                    stream.write_all(&sent).unwrap();
                    let mut received = [0; 100];
                    stream.read_exact(&mut received).unwrap();
                    assert_eq!(received, sent);
                }
            }
        }
    }
}

mod watching {
    use super::*;

    fn spins_until(condition: impl Fn() -> bool) -> bool {
        let began = std::time::Instant::now();
        while !condition() {
            if began.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }

    /// The worker that watches gets work for itself, while a third one sleeps and a thread waits behind a
    /// busy one.
    #[test]
    fn goes_on_when_the_watcher_gets_work() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        for _ in 0..3 {
            let runtime = uthread::Runtime::builder().workers(3).build().unwrap();
            let stage = AtomicUsize::new(0);
            let (stage, runtime) = (&stage, &runtime);
            std::thread::scope(|os| {
                os.spawn(|| {
                    while stage.load(SeqCst) < 2 {
                        std::thread::yield_now();
                    }
                    // From outside, it goes to a worker that sleeps, the watcher perhaps.
                    runtime.run(|| assert!(spins_until(|| stage.load(SeqCst) == 5)));
                });
                runtime.run(|| {
                    uthread::scope(|s| {
                        s.spawn(|| stage.store(1, SeqCst));
                        assert!(spins_until(|| stage.load(SeqCst) == 1));
                        s.spawn(|| stage.store(4, SeqCst));
                        // Overwrites nothing: the thread above has not run or has, and then that is it.
                        let _ = stage.compare_exchange(1, 2, SeqCst, SeqCst);
                        assert!(spins_until(|| stage.load(SeqCst) == 4), "nobody watches");
                        stage.store(5, SeqCst);
                    });
                });
            });
        }
    }
}

#[test]
fn joins_on_os_threads_leave_the_token_of_std_alone() {
    std::thread::current().unpark();
    uthread::spawn(|| uthread::sleep(Duration::from_millis(1))).join().unwrap();
    uthread::scope(|s| _ = s.spawn(|| uthread::sleep(Duration::from_millis(1))));
    // Blocks for ever if the token is gone.
    std::thread::park();
}
