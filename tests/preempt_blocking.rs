//! Calls that block in the kernel block nobody else.

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use uthread::{Runtime, Stall, StallKind};

use preempt::{hectic, on_each};
use watchdog::watched;

/// Runs a scenario on one worker: it deadlocks there if a blocked thread keeps the worker. The number of
/// threads that were moved to helpers.
fn on_one_worker(scenario: impl FnOnce() + Send) -> u64 {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || runtime.run(scenario));
    runtime.stats().helper_moves
}

/// Makes sure that the other thread has begun to block, as far as can be seen: that it was moved.
fn until_moved(moves: u64) {
    while uthread::stats().helper_moves < moves {
        uthread::yield_now();
    }
}

#[test]
fn a_read_of_a_pipe_gets_what_its_neighbour_writes() {
    let moves = on_one_worker(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let blocked = uthread::spawn(move || {
            let mut data = [0; 5];
            reader.read_exact(&mut data).unwrap();
            // Back on a worker, or soon.
            uthread::yield_now();
            uthread::sleep(Duration::from_micros(1));
            data
        });
        until_moved(1);
        writer.write_all(b"whole").unwrap();
        assert_eq!(&blocked.join().unwrap(), b"whole");
    });
    assert!(moves >= 1);
}

#[test]
fn a_file_lock_is_got_when_its_neighbour_lets_go() {
    on_one_worker(|| {
        let path = std::env::temp_dir().join(format!("uthread-flock-{}", std::process::id()));
        let (held, wanted) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        held.lock().unwrap();
        let blocked = uthread::spawn(move || wanted.lock().map_err(|e| e.kind()));
        until_moved(1);
        held.unlock().unwrap();
        assert_eq!(blocked.join().unwrap(), Ok(()));
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn sleeping_in_the_kernel_keeps_nobody_awake() {
    on_one_worker(|| {
        let turns = Arc::new(AtomicU64::new(0));
        let seen = turns.clone();
        let blocked = uthread::spawn(move || {
            while seen.load(Ordering::Relaxed) < 10 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while !blocked.is_finished() {
            turns.fetch_add(1, Ordering::Relaxed);
            uthread::yield_now();
        }
        blocked.join().unwrap();
    });
}

#[test]
fn waiting_for_a_child_waits_alone() {
    on_one_worker(|| {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let blocked = uthread::spawn(move || child.wait().unwrap().success());
        until_moved(1);
        drop(input);
        assert!(blocked.join().unwrap());
    });
}

#[test]
fn a_lock_of_std_is_got_when_its_neighbour_lets_go() {
    on_one_worker(|| {
        let lock = Arc::new(Mutex::new(0));
        let held = lock.lock().unwrap();
        let theirs = lock.clone();
        let blocked = uthread::spawn(move || *theirs.lock().unwrap() += 1);
        until_moved(1);
        drop(held);
        blocked.join().unwrap();
        assert_eq!(*lock.lock().unwrap(), 1);
    });
}

#[test]
fn accepting_and_polling_wait_alone() {
    on_one_worker(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let blocked = uthread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            let mut poll =
                libc::pollfd { fd: connection.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid entry. (A call that is never restarted after a signal: signal(7).)
            while unsafe { libc::poll(&mut poll, 1, -1) } != 1 {}
            let mut byte = [0];
            (&connection).read_exact(&mut byte).unwrap();
            byte[0]
        });
        until_moved(1);
        let mut peer = uthread::net::TcpStream::connect(address).unwrap();
        for _ in 0..100 {
            uthread::yield_now();
        }
        peer.write_all(&[7]).unwrap();
        assert_eq!(blocked.join().unwrap(), 7);
    });
}

#[test]
fn more_threads_than_helpers_take_turns() {
    let runtime = hectic(1).helpers(2).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let pipes: Vec<_> = (0..10).map(|_| std::io::pipe().unwrap()).collect();
            let (readers, mut writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
            let blocked: Vec<_> = readers
                .into_iter()
                .map(|mut reader| {
                    uthread::spawn(move || {
                        let mut byte = [0];
                        reader.read_exact(&mut byte).unwrap();
                        byte[0]
                    })
                })
                .collect();
            until_moved(2);
            for (i, writer) in writers.iter_mut().enumerate() {
                writer.write_all(&[i as u8]).unwrap();
            }
            for (i, thread) in blocked.into_iter().enumerate() {
                assert_eq!(thread.join().unwrap(), i as u8);
            }
            assert!(uthread::stats().helpers <= 2);
        });
    });
}

#[test]
fn a_thread_that_computes_after_it_blocked_comes_back() {
    on_one_worker(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let theirs = over.clone();
        let thread = uthread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            while !theirs.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        until_moved(1);
        let before = uthread::stats();
        writer.write_all(b"x").unwrap();
        while uthread::stats().arrivals == before.arrivals {
            uthread::sleep(Duration::from_micros(100));
        }
        over.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    });
}

#[test]
fn blocking_on_purpose_takes_what_cannot_be_sent() {
    for workers in [1, 2] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let local = Rc::new(Cell::new(1));
                let (mut reader, mut writer) = std::io::pipe().unwrap();
                let neighbour = uthread::spawn(move || writer.write_all(b"y").unwrap());
                let read = uthread::blocking(|| {
                    local.set(2);
                    let mut byte = [0];
                    reader.read_exact(&mut byte).unwrap();
                    byte
                });
                assert_eq!((read, local.get()), (*b"y", 2));
                neighbour.join().unwrap();
            });
        });
        assert_eq!(runtime.stats().blocking_calls, 1);
    }
}

#[test]
fn blocking_on_purpose_nests_panics_and_may_wait() {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let inner = || {
                uthread::sleep(Duration::from_micros(10));
                let child = uthread::spawn(|| 5);
                uthread::yield_now();
                uthread::blocking(|| uthread::current().unpark());
                uthread::park();
                child.join().unwrap()
            };
            assert_eq!(uthread::blocking(|| uthread::blocking(inner)), 5);
            assert_eq!(uthread::without_preemption(|| uthread::blocking(inner)), 5);
            let panicked = std::panic::catch_unwind(|| uthread::blocking(|| panic!("through")));
            assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "through");
            uthread::yield_now();
        });
    });
    assert_eq!(uthread::blocking(|| 3), 3, "on an OS thread");
    let shared = Runtime::builder().workers(1).thread_blocks(false).build().unwrap();
    assert_eq!(shared.run(|| uthread::blocking(|| 4)), 4);
}

#[test]
fn threads_may_end_where_they_blocked() {
    let moves = on_one_worker(|| {
        for _ in 0..20 {
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            let moved = uthread::stats().helper_moves;
            let blocked = uthread::spawn(move || reader.read_exact(&mut [0]).unwrap());
            until_moved(moved + 1);
            writer.write_all(b"z").unwrap();
            blocked.join().unwrap();
        }
    });
    assert!(moves >= 20);
}

#[test]
fn a_section_without_preemption_is_not_interrupted_and_catches_up() {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (over, progress) = (AtomicBool::new(false), AtomicU64::new(0));
            uthread::scope(|s| {
                s.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        progress.fetch_add(1, Ordering::Relaxed);
                    }
                });
                while progress.load(Ordering::Relaxed) == 0 {
                    std::hint::spin_loop();
                }
                uthread::without_preemption(|| {
                    let before = progress.load(Ordering::Relaxed);
                    uthread::without_preemption(|| ());
                    let deferred = uthread::stats().deferred_disabled;
                    while uthread::stats().deferred_disabled < deferred + 3 {
                        std::hint::spin_loop();
                    }
                    assert_eq!(progress.load(Ordering::Relaxed), before);
                    // To wait is allowed; then the other runs.
                    uthread::sleep(Duration::from_micros(100));
                    assert!(progress.load(Ordering::Relaxed) > before);
                });
                over.store(true, Ordering::Relaxed);
            });
        });
    });
}

#[test]
fn nobody_is_interrupted_where_that_is_switched_off() {
    let off = hectic(1).preemption(false).build().unwrap();
    let shared = hectic(1).thread_blocks(false).build().unwrap();
    for runtime in [off, shared] {
        assert!(runtime.preemption().is_err());
        runtime.run(|| {
            on_each(2, |_| {
                let mut sum = 0_u64;
                for i in 0..3_000_000 {
                    sum = std::hint::black_box(sum + i);
                }
            });
        });
        let stats = runtime.stats();
        assert_eq!((stats.ticks, stats.forced_switches), (0, 0));
    }
}

#[test]
fn a_thread_that_is_alone_gets_no_ticks() {
    let runtime = hectic(1).build().unwrap();
    runtime.run(|| {
        let before = uthread::stats().ticks;
        let mut sum = 0_u64;
        for i in 0..20_000_000 {
            sum = std::hint::black_box(sum + i);
        }
        // One that was armed before may still come.
        assert!(uthread::stats().ticks <= before + 1);
    });
}

#[test]
fn wake_ups_are_served_while_hogs_run() {
    for workers in [1, 2] {
        let runtime = Runtime::builder().workers(workers).build().unwrap();
        watched(&runtime, || {
            let over = Arc::new(AtomicBool::new(false));
            for _ in 0..4 {
                let over = over.clone();
                runtime.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            // A sleeper, a thread that an OS thread wakes, and one that waits for a socket.
            let sleeper =
                runtime.spawn(|| (0..20).for_each(|_| uthread::sleep(Duration::from_millis(1))));
            let (sender, receiver) = mpsc::channel();
            let parked = runtime.spawn(move || {
                for i in 0..20 {
                    uthread::park();
                    sender.send(i).unwrap();
                }
            });
            for _ in 0..20 {
                parked.thread().unpark();
                receiver.recv().unwrap();
            }
            let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let echo = runtime.spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                let mut byte = [0];
                while connection.read(&mut byte).unwrap() == 1 {
                    connection.write_all(&byte).unwrap();
                }
            });
            let mut peer = std::net::TcpStream::connect(address).unwrap();
            for i in 0..20 {
                peer.write_all(&[i]).unwrap();
                let mut byte = [0];
                peer.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], i);
            }
            drop(peer);
            echo.join().unwrap();
            parked.join().unwrap();
            sleeper.join().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        assert!(runtime.stats().forced_switches > 20);
    }
}

#[inline(never)]
fn a_function_that_keeps_its_worker(reported: &AtomicBool) {
    while !std::hint::black_box(reported).load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_stall_is_reported_once_with_name_and_stack() {
    let reported = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let seen = reported.clone();
    let runtime = hectic(1)
        .stall_threshold(Duration::from_millis(5))
        .on_stall(move |stall: &Stall| {
            sender.send(stall.clone()).unwrap();
            seen.store(true, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    watched(&runtime, || {
        let selfish = uthread::Builder::new().name("selfish".to_owned());
        let theirs = reported.clone();
        let thread = selfish.spawn_in(&runtime, move || {
            let waiting = uthread::spawn(|| ());
            uthread::without_preemption(|| a_function_that_keeps_its_worker(&theirs));
            waiting.join().unwrap();
        });
        thread.unwrap().join().unwrap();
    });
    let stall = receiver.recv().unwrap();
    assert_eq!(stall.kind, StallKind::PreemptionDisabled);
    assert_eq!(stall.thread_name.as_deref(), Some("selfish"));
    assert!(stall.duration >= Duration::from_millis(5));
    assert!(stall.stack.contains("a_function_that_keeps_its_worker"), "{stall}");
    assert_eq!(runtime.stats().stalls, 1);
}

#[test]
fn ops_begun_before_a_long_turn_complete_during_it() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    watched(&runtime, || {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = over.clone();
        runtime.spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = runtime.spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut byte = [0];
            // The next read is begun, and then only the hog is left to run.
            while connection.read(&mut byte).unwrap() == 1 {
                connection.write_all(&byte).unwrap();
            }
        });
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        for _ in 0..200 {
            peer.write_all(&[1]).unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        drop(peer);
        echo.join().unwrap();
        over.store(true, Ordering::Relaxed);
    });
}
