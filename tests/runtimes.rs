//! Runtimes start, end without a trace, live side by side, and say what they do.
//!
//! What concerns the whole process (its threads, descriptors, mappings, limits, environment) is played
//! in a process of its own.

#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use subprocess::in_child;
use uthread::{Builder, Runtime};
use watchdog::watched;

const WORKERS: usize = 4;

fn runtime() -> Runtime {
    Runtime::builder().workers(WORKERS).build().unwrap()
}

/// Long enough for anything that the kernel or a worker does a little later.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until it is so; whether it came to that.
fn comes_true(condition: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[track_caller]
fn assert_success(child: &std::process::Output) {
    let [out, err] = [&child.stdout, &child.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(child.status.success(), "{}\n{out}\n{err}", child.status);
}

/// What a process holds.
mod holdings {
    use std::fs;

    fn entries(folder: &str) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    pub(crate) fn threads() -> usize {
        entries("/proc/self/task")
    }

    pub(crate) fn descriptors() -> usize {
        entries("/proc/self/fd")
    }

    pub(crate) fn mappings() -> usize {
        fs::read_to_string("/proc/self/maps").unwrap().lines().count()
    }

    fn status_kib(field: &str) -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
    }

    pub(crate) fn resident_kib() -> usize {
        status_kib("VmRSS")
    }

    pub(crate) fn address_space_kib() -> usize {
        status_kib("VmSize")
    }
}

mod ending {
    use super::*;
    use std::io::{Read, Write};
    use uthread::net::{TcpListener, TcpStream};

    /// Runs a runtime that makes use of all that it has.
    fn run_one() {
        let runtime = runtime();
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            uthread::scope(|s| {
                s.spawn(move || {
                    TcpStream::connect(address).unwrap().write_all(b"!").unwrap();
                });
                listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
                for i in 0..50 {
                    s.spawn(move || {
                        uthread::sleep(Duration::from_micros(i));
                        uthread::yield_now();
                    });
                }
            });
        });
    }

    #[test]
    fn of_a_hundred_runtimes_leaves_nothing_behind() {
        // What the allocator may keep by chance; a stack each would be six times as much.
        const SLACK_KIB: usize = 1024;
        let child = in_child("ending::of_a_hundred_runtimes_leaves_nothing_behind", &[], || {
            let (threads, descriptors) = (holdings::threads(), holdings::descriptors());
            // Pools and the allocator's arenas fill first.
            (0..50).for_each(|_| run_one());
            let (mappings, resident) = (holdings::mappings(), holdings::resident_kib());
            (0..100).for_each(|_| run_one());
            // The kernel takes threads off its list a little after they were joined.
            let gone = comes_true(|| holdings::threads() == threads);
            assert!(gone, "{} threads instead of {threads}", holdings::threads());
            // A bell is the process's, once and for all: signal handlers that wake threads ring it.
            let kept = usize::from(cfg!(feature = "interpose"));
            assert_eq!(holdings::descriptors(), descriptors + kept, "descriptors");
            assert!(
                holdings::mappings() <= mappings,
                "{} mappings instead of {mappings}: {}",
                holdings::mappings(),
                std::fs::read_to_string("/proc/self/maps").unwrap()
            );
            let grown = holdings::resident_kib().saturating_sub(resident);
            assert!(grown <= SLACK_KIB, "{grown} KiB more than after the first fifty");
        });
        assert_success(&child);
    }

    #[test]
    fn waits_for_all_threads() {
        let finished = Arc::new(AtomicUsize::new(0));
        let runtime = runtime();
        for _ in 0..50 {
            let finished = finished.clone();
            runtime.spawn(move || {
                let child = finished.clone();
                uthread::sleep(Duration::from_millis(1));
                // What is spawned while the runtime ends belongs to it too.
                uthread::spawn(move || {
                    uthread::sleep(Duration::from_millis(1));
                    child.fetch_add(1, Relaxed);
                });
                finished.fetch_add(1, Relaxed);
            });
        }
        drop(runtime);
        assert_eq!(finished.load(Relaxed), 100);
    }

    #[test]
    fn on_a_thread_of_another_runtime_waits_too() {
        let finished = AtomicUsize::new(0);
        let one = runtime();
        watched(&one, || {
            one.run(|| {
                let other = runtime();
                uthread::scope(|s| {
                    for _ in 0..20 {
                        s.spawn(|| {
                            other.run(|| uthread::sleep(Duration::from_millis(1)));
                            finished.fetch_add(1, Relaxed);
                        });
                    }
                });
                drop(other);
            });
        });
        assert_eq!(finished.into_inner(), 20);
    }

    #[test]
    fn by_one_of_its_own_threads_lets_the_others_end() {
        let child = in_child("ending::by_one_of_its_own_threads_lets_the_others_end", &[], || {
            let threads = holdings::threads();
            for _ in 0..10 {
                let runtime = runtime();
                let finished = Arc::new(AtomicUsize::new(0));
                for _ in 0..20 {
                    let finished = finished.clone();
                    runtime.spawn(move || {
                        uthread::sleep(Duration::from_millis(2));
                        finished.fetch_add(1, SeqCst);
                    });
                }
                let handed_over = Arc::new(Mutex::new(None));
                let theirs = handed_over.clone();
                let last = runtime.spawn(move || {
                    loop {
                        let runtime: Option<Runtime> = theirs.lock().unwrap().take();
                        if runtime.is_some() {
                            return drop(runtime);
                        }
                        uthread::yield_now();
                    }
                });
                *handed_over.lock().unwrap() = Some(runtime);
                last.join().unwrap();
                assert!(comes_true(|| finished.load(SeqCst) == 20));
            }
            assert!(comes_true(|| holdings::threads() == threads), "workers are left");
        });
        assert_success(&child);
    }

    #[test]
    fn of_one_that_was_never_used_is_quick() {
        for _ in 0..20 {
            drop(runtime());
        }
    }

    #[test]
    fn right_after_its_last_thread_was_woken_from_outside_is_safe() {
        let waker = runtime();
        watched(&waker, || {
            for round in 0..200 {
                let woken = Runtime::builder().workers(1 + round % 2).build().unwrap();
                let parked = Arc::new(AtomicBool::new(false));
                let theirs = parked.clone();
                let sleeper = woken.spawn(move || {
                    while !theirs.load(SeqCst) {
                        uthread::park();
                    }
                });
                let thread = sleeper.thread().clone();
                waker.spawn(move || {
                    parked.store(true, SeqCst);
                    thread.unpark();
                });
                drop(sleeper);
                drop(woken);
            }
        });
    }
}

mod side_by_side {
    use super::*;

    #[test]
    fn runtimes_join_and_unpark_each_others_threads() {
        let [one, two, three] = [(); 3].map(|()| runtime());
        watched(&one, || {
            let sum: usize = one.run(|| {
                let me = uthread::current();
                let turn = AtomicUsize::new(0);
                std::thread::scope(|s| {
                    // OS threads bring the other runtimes' threads in, which know this one only by
                    // its handle.
                    for (i, runtime) in [&two, &three].into_iter().enumerate() {
                        let (turn, me) = (&turn, me.clone());
                        s.spawn(move || {
                            runtime.run(|| {
                                for round in 0..100 {
                                    while turn.load(SeqCst) != 2 * round + i {
                                        uthread::yield_now();
                                    }
                                    turn.fetch_add(1, SeqCst);
                                    me.unpark();
                                }
                            });
                        });
                    }
                    while turn.load(SeqCst) < 200 {
                        uthread::park();
                    }
                });
                let theirs = [&two, &three].map(|r| r.spawn(|| uthread::spawn(|| 21).join()));
                theirs.into_iter().map(|t| t.join().unwrap().unwrap()).sum()
            });
            assert_eq!(sum, 42);
        });
    }

    #[test]
    fn threads_spawn_into_their_own_runtime() {
        let [one, two] = [(); 2].map(|()| runtime());
        one.run(|| {
            for _ in 0..10 {
                uthread::spawn(|| uthread::spawn(|| ()).join()).join().unwrap().unwrap();
            }
            assert_eq!(uthread::stats().spawned, 21);
            assert_eq!(two.run(|| uthread::stats().spawned), 1);
            let elsewhere = Builder::new().spawn_in(&two, || uthread::stats().spawned).unwrap();
            assert_eq!(elsewhere.join().unwrap(), 2);
        });
        assert_eq!((one.stats().spawned, two.stats().spawned), (21, 2));
    }

    #[test]
    fn a_runtime_runs_from_its_own_threads_too() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        assert_eq!(runtime.run(|| runtime.run(|| runtime.run(|| 7))), 7);
    }
}

mod failure_to_spawn {
    use super::*;
    use std::os::fd::AsRawFd;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    /// Address space, in KiB, that is left to the process: less than a slab of stacks takes.
    const LEFT_KIB: usize = 8 << 10;

    /// Limits the address space while `scenario` runs.
    fn with_little_address_space(scenario: impl FnOnce()) {
        let (before, most) = getrlimit(Resource::RLIMIT_AS).unwrap();
        loop {
            let limit_kib = holdings::address_space_kib() + LEFT_KIB;
            setrlimit(Resource::RLIMIT_AS, (limit_kib << 10) as u64, most).unwrap();
            if holdings::address_space_kib() + LEFT_KIB / 2 <= limit_kib {
                break;
            }
            // Meanwhile another thread took what was left, for its first allocation.
            setrlimit(Resource::RLIMIT_AS, before, most).unwrap();
        }
        scenario();
        setrlimit(Resource::RLIMIT_AS, before, most).unwrap();
    }

    fn huge() -> Builder {
        Builder::new().stack_size(1 << 30)
    }

    #[test]
    fn for_want_of_address_space_is_an_error_and_passes() {
        let test = "failure_to_spawn::for_want_of_address_space_is_an_error_and_passes";
        let child = in_child(test, &[], || {
            let runtime = runtime();
            runtime.run(|| {
                uthread::spawn(|| ()).join().unwrap();
                let (descriptors, mappings) = (holdings::descriptors(), holdings::mappings());
                let before = uthread::stats();
                let capture = Arc::new(());
                with_little_address_space(|| {
                    for _ in 0..50 {
                        let captured = capture.clone();
                        let error = huge().spawn(move || drop(captured)).unwrap_err();
                        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
                    }
                    // Threads whose stacks are there already can be had.
                    assert_eq!(uthread::spawn(|| 5).join().unwrap(), 5);
                });
                assert_eq!(Arc::strong_count(&capture), 1, "closures are left");
                assert_eq!(holdings::descriptors(), descriptors);
                assert!(holdings::mappings() <= mappings + 1, "the allocator's heap may split");
                let after = uthread::stats();
                assert_eq!(after.spawned, before.spawned + 1);
                assert_eq!(after.stack_reserved_bytes, before.stack_reserved_bytes);
                assert_eq!(huge().spawn(|| 6).unwrap().join().unwrap(), 6);
            });
            assert!(comes_true(|| runtime.stats().threads_live == 0));
        });
        assert_success(&child);
    }

    #[test]
    fn from_an_os_thread_is_an_error_too() {
        let test = "failure_to_spawn::from_an_os_thread_is_an_error_too";
        let child = in_child(test, &[], || {
            let runtime = runtime();
            with_little_address_space(|| {
                let error = huge().spawn_in(&runtime, || ()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
            });
            assert_eq!(huge().spawn_in(&runtime, || 7).unwrap().join().unwrap(), 7);
        });
        assert_success(&child);
    }

    #[test]
    fn in_a_scope_does_not_keep_it_from_ending() {
        let test = "failure_to_spawn::in_a_scope_does_not_keep_it_from_ending";
        let child = in_child(test, &[], || {
            runtime().run(|| {
                with_little_address_space(|| {
                    let borrowed = AtomicUsize::new(0);
                    uthread::scope(|s| {
                        s.spawn(|| borrowed.fetch_add(1, Relaxed));
                        for _ in 0..10 {
                            let attempt = huge().spawn_scoped(s, || borrowed.fetch_add(1, Relaxed));
                            assert!(attempt.is_err());
                        }
                    });
                    assert_eq!(borrowed.into_inner(), 1);
                });
            });
        });
        assert_success(&child);
    }

    #[test]
    fn after_as_many_threads_as_fit_leaves_those_alone() {
        let test = "failure_to_spawn::after_as_many_threads_as_fit_leaves_those_alone";
        let child = in_child(test, &[], || {
            let runtime = runtime();
            runtime.run(|| {
                uthread::spawn(|| ()).join().unwrap();
                with_little_address_space(|| {
                    let mut threads = Vec::new();
                    let error = loop {
                        match Builder::new().spawn(uthread::park) {
                            Ok(thread) => threads.push(thread),
                            Err(error) => break error,
                        }
                        assert!(threads.len() < 100_000, "the limit has no effect");
                    };
                    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
                    assert!(threads.len() > 10);
                    for thread in threads {
                        thread.thread().unpark();
                        thread.join().unwrap();
                    }
                });
                let again: Vec<_> = (0..1000).map(|_| uthread::spawn(uthread::yield_now)).collect();
                again.into_iter().for_each(|thread| thread.join().unwrap());
            });
            assert!(comes_true(|| runtime.stats().threads_live == 0));
        });
        assert_success(&child);
    }

    #[test]
    fn a_runtime_without_descriptors_is_an_error_and_leaves_nothing() {
        let test = "failure_to_spawn::a_runtime_without_descriptors_is_an_error_and_leaves_nothing";
        let child = in_child(test, &[], || {
            drop(runtime());
            let (threads, descriptors) = (holdings::threads(), holdings::descriptors());
            let running = runtime();
            let needed = holdings::descriptors() - descriptors;
            drop(running);
            let (before, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let highest = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as usize;
            for missing in 1..=needed {
                let limit = highest + needed - missing;
                setrlimit(Resource::RLIMIT_NOFILE, limit as u64, most).unwrap();
                let error = Runtime::builder().workers(WORKERS).build().unwrap_err();
                let told = error.to_string();
                let says_why = error.raw_os_error() == Some(libc::EMFILE);
                assert!(says_why || told.contains("RLIMIT_NOFILE"), "{told}");
                setrlimit(Resource::RLIMIT_NOFILE, before, most).unwrap();
                assert_eq!(holdings::descriptors(), descriptors);
                // Threads that were joined may have counted above, while they were ending.
                assert!(comes_true(|| holdings::threads() <= threads));
            }
            assert_eq!(runtime().run(|| 8), 8);
        });
        assert_success(&child);
    }
}

mod statistics {
    use super::*;

    #[test]
    fn add_up() {
        const THREADS: u64 = 300;
        let runtime = runtime();
        watched(&runtime, || {
            assert_eq!(runtime.stats().workers, WORKERS as u64);
            runtime.run(|| {
                assert!(uthread::stats().threads_live >= 1);
                let threads: Vec<_> = (0..THREADS)
                    .map(|_| {
                        uthread::spawn(|| {
                            uthread::yield_now();
                            uthread::sleep(Duration::from_micros(10));
                            uthread::park();
                        })
                    })
                    .collect();
                assert_eq!(uthread::stats().spawned, THREADS + 1);
                for thread in threads {
                    thread.thread().unpark();
                    thread.join().unwrap();
                }
            });
            assert!(comes_true(|| runtime.stats().threads_live == 0), "{}", runtime.stats());
            let stats = runtime.stats();
            assert_eq!((stats.spawned, stats.finished), (THREADS + 1, THREADS + 1));
            assert_eq!(stats.yields, THREADS);
            // Each thread yields and sleeps, so that it is switched to three times at least.
            assert!(stats.switches > 3 * THREADS, "{stats}");
            assert!(stats.wakeups >= THREADS, "{stats}");
            assert!(stats.arrivals >= stats.stolen && stats.stolen >= stats.steals, "{stats}");
            assert!(stats.stacks_mapped >= stats.stacks_pooled, "{stats}");
            assert!(stats.stack_reserved_bytes > 0, "{stats}");
        });
    }

    #[test]
    fn are_printed_one_a_line() {
        let text = runtime().stats().to_string();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap();
            assert!(!name.is_empty() && value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.starts_with("workers 4\n"), "{text}");
    }

    #[test]
    fn are_zero_where_no_runtime_was_started() {
        let child = in_child("statistics::are_zero_where_no_runtime_was_started", &[], || {
            assert_eq!(uthread::stats(), uthread::Stats::default());
            uthread::spawn(|| ()).join().unwrap();
            assert_eq!(uthread::stats().spawned, 1);
        });
        assert_success(&child);
    }
}

mod configuration {
    use super::*;

    #[test]
    fn the_global_runtime_is_built_once() {
        let child = in_child("configuration::the_global_runtime_is_built_once", &[], || {
            Runtime::builder().workers(3).build_global().unwrap();
            assert_eq!(uthread::spawn(|| uthread::stats().workers).join().unwrap(), 3);
            let error = Runtime::builder().build_global().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(uthread::spawn(|| 3).join().unwrap(), 3);
        });
        assert_success(&child);
    }

    #[test]
    fn the_global_runtime_cannot_be_built_after_the_first_spawn() {
        let test = "configuration::the_global_runtime_cannot_be_built_after_the_first_spawn";
        let child = in_child(test, &[], || {
            uthread::spawn(|| ()).join().unwrap();
            let error = Runtime::builder().build_global().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        });
        assert_success(&child);
    }

    #[test]
    fn the_environment_says_how_many_workers() {
        let test = "configuration::the_environment_says_how_many_workers";
        let child = in_child(test, &[("UTHREAD_WORKERS", "3")], || {
            assert_eq!(uthread::spawn(|| uthread::stats().workers).join().unwrap(), 3);
            let told = Runtime::builder().workers(2).build().unwrap();
            assert_eq!(told.stats().workers, 2);
        });
        assert_success(&child);
    }

    #[test]
    fn what_the_environment_says_without_sense_is_ignored() {
        let test = "configuration::what_the_environment_says_without_sense_is_ignored";
        let environment = [("UTHREAD_WORKERS", "a few"), ("UTHREAD_STACK_SIZE", "-1")];
        let child = in_child(test, &environment, || {
            let workers = uthread::spawn(|| uthread::stats().workers).join().unwrap();
            assert_eq!(workers as usize, uthread::available_parallelism().unwrap().get());
        });
        assert_success(&child);
    }

    /// Stacks of the usual size are told by the message of an overflow.
    fn overflow() {
        #[inline(never)]
        fn recurse(levels: usize) -> usize {
            let frame = std::hint::black_box([levels; 100]);
            if levels == 0 { frame[0] } else { recurse(levels - 1).max(frame[1]) }
        }
        uthread::spawn(|| recurse(usize::MAX)).join().unwrap();
    }

    #[test]
    fn the_environment_says_how_large_stacks_are() {
        let test = "configuration::the_environment_says_how_large_stacks_are";
        let child = in_child(test, &[("UTHREAD_STACK_SIZE", "2000000")], overflow);
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert!(stderr.contains("has overflowed its stack of 2048 KiB"), "{stderr}");
    }

    #[test]
    fn the_builder_says_how_large_stacks_are() {
        let test = "configuration::the_builder_says_how_large_stacks_are";
        let child = in_child(test, &[("UTHREAD_STACK_SIZE", "2000000")], || {
            let runtime = Runtime::builder().stack_size(100_000).build().unwrap();
            runtime.run(overflow);
        });
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert!(stderr.contains("has overflowed its stack of 128 KiB"), "{stderr}");
    }

    #[test]
    fn small_rings_serve_more_ops_than_they_have_entries() {
        use std::io::{Read, Write};
        use uthread::net::{TcpListener, TcpStream};

        let runtime = Runtime::builder().workers(1).ring_entries(2).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                uthread::scope(|s| {
                    for _ in 0..50 {
                        s.spawn(move || {
                            let mut stream = TcpStream::connect(address).unwrap();
                            uthread::sleep(Duration::from_millis(1));
                            stream.write_all(b"!").unwrap();
                        });
                    }
                    for _ in 0..50 {
                        let (mut stream, _) = listener.accept().unwrap();
                        s.spawn(move || stream.read_exact(&mut [0]).unwrap());
                    }
                });
            });
        });
    }

    #[test]
    fn workers_are_named() {
        let runtime = Runtime::builder().workers(2).name("heron").build().unwrap();
        let own_name = || std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        let name = runtime.run(own_name);
        assert!(name.trim_end() == "heron-0" || name.trim_end() == "heron-1", "{name}");
    }
}

mod without_thread_blocks {
    use super::*;
    use std::io::{Read, Write};
    use uthread::net::{TcpListener, TcpStream};

    fn runtime() -> Runtime {
        Runtime::builder().workers(WORKERS).thread_blocks(false).build().unwrap()
    }

    fn worker() -> libc::pid_t {
        // SAFETY: no preconditions.
        unsafe { libc::gettid() }
    }

    #[test]
    fn runtimes_say_whether_they_have_them() {
        let error = runtime().thread_blocks().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(!error.to_string().is_empty());
        let with = super::runtime();
        match with.thread_blocks() {
            Ok(()) => {}
            Err(e) => println!("this machine has none: {e}"),
        }
    }

    #[test]
    fn threads_stay_on_their_worker_through_every_kind_of_wait() {
        let runtime = runtime();
        watched(&runtime, || {
            runtime.run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                uthread::scope(|s| {
                    s.spawn(move || {
                        uthread::scope(|s| {
                            for _ in 0..20 {
                                let (stream, _) = listener.accept().unwrap();
                                s.spawn(move || std::io::copy(&mut &stream, &mut &stream));
                            }
                        });
                    });
                    for i in 0..20 {
                        s.spawn(move || {
                            let own = worker();
                            let mut stream = TcpStream::connect(address).unwrap();
                            for round in 0..50 {
                                match (i + round) % 5 {
                                    0 => uthread::yield_now(),
                                    1 => uthread::sleep(Duration::from_micros(50)),
                                    2 => {
                                        let me = uthread::current();
                                        let waker = uthread::spawn(move || me.unpark());
                                        uthread::park();
                                        waker.join().unwrap();
                                    }
                                    3 => uthread::scope(|s| {
                                        s.spawn(uthread::yield_now);
                                    }),
                                    _ => {
                                        stream.write_all(b"?").unwrap();
                                        stream.read_exact(&mut [0]).unwrap();
                                    }
                                }
                                assert_eq!(worker(), own, "moved after it had started");
                            }
                        });
                    }
                });
            });
        });
    }

    #[test]
    fn a_thread_behind_one_that_computes_waits_though_workers_are_idle() {
        let runtime = runtime();
        watched(&runtime, || {
            runtime.run(|| {
                for _ in 0..10 {
                    let own = worker();
                    let computing = uthread::spawn(|| {
                        let began = Instant::now();
                        while began.elapsed() < Duration::from_millis(20) {
                            std::hint::spin_loop();
                        }
                        worker()
                    });
                    uthread::yield_now();
                    assert_eq!(worker(), own);
                    computing.join().unwrap();
                    assert_eq!(worker(), own);
                }
            });
        });
    }

    #[test]
    fn threads_that_have_not_started_spread_over_the_workers() {
        let runtime = runtime();
        watched(&runtime, || {
            runtime.run(|| {
                // Each waits until as many workers take part: it takes one for each.
                let taking_part = AtomicUsize::new(0);
                let workers: std::collections::HashSet<_> = uthread::scope(|s| {
                    let threads: Vec<_> = (1..WORKERS)
                        .map(|_| {
                            s.spawn(|| {
                                taking_part.fetch_add(1, SeqCst);
                                // It keeps its worker: to sleep would make room for another one there.
                                while taking_part.load(SeqCst) < WORKERS - 1 {
                                    std::hint::spin_loop();
                                }
                                worker()
                            })
                        })
                        .collect();
                    threads.into_iter().map(|t| t.join().unwrap()).collect()
                });
                assert_eq!(workers.len(), WORKERS - 1);
            });
        });
    }

    #[test]
    fn panics_and_results_reach_who_joins() {
        let runtime = runtime();
        let sum: usize = runtime.run(|| {
            let threads: Vec<_> = (0..200)
                .map(|i| {
                    uthread::spawn(move || {
                        uthread::yield_now();
                        if i % 2 == 0 { std::panic::resume_unwind(Box::new(i)) } else { i }
                    })
                })
                .collect();
            let outcomes = threads.into_iter().map(|t| match t.join() {
                Ok(result) => result,
                Err(payload) => *payload.downcast::<usize>().unwrap(),
            });
            outcomes.sum()
        });
        assert_eq!(sum, 199 * 100);
    }
}
