//! Counters and histograms say what has happened.

#[path = "common/watchdog.rs"]
mod watchdog;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use uthread::net::{TcpListener, TcpStream};
use uthread::{Builder, Group, MetricKind, MetricValue, Runtime, SchedStat, Stats};
use watchdog::watched;

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

/// The figures of a runtime that has come to rest: the last turn's end is counted after its thread's.
fn at_rest(runtime: &Runtime) -> Stats {
    let began = Instant::now();
    loop {
        let stats = runtime.stats();
        if stats.threads_live == 0 && stats.slice_length.count() == stats.switches {
            return stats;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no rest: {stats}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a group has used in a runtime that has come to rest: until its worker has looked for more to do, the last turn
/// is taken for one that goes on.
fn used_at_rest(runtime: &Runtime, group: &Group) -> SchedStat {
    loop {
        let used = runtime.group_stats(group);
        std::thread::sleep(Duration::from_millis(1));
        if runtime.group_stats(group) == used {
            return used;
        }
    }
}

#[test]
fn each_turn_has_a_length_and_a_delay_and_each_wake_up_a_latency() {
    for workers in [1, 3] {
        let runtime = runtime(workers);
        let stats = watched(&runtime, || {
            runtime.run(|| {
                let threads: Vec<_> = (0..50)
                    .map(|_| {
                        uthread::spawn(|| {
                            uthread::yield_now();
                            uthread::sleep(Duration::from_micros(50));
                            uthread::park_timeout(Duration::from_micros(50));
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|t| t.join().unwrap());
            });
            at_rest(&runtime)
        });
        assert_eq!(stats.run_delay.count(), stats.switches, "{stats}");
        assert_eq!(stats.wakeup_latency.count(), stats.wakeups, "{stats}");
        assert!(stats.wakeups >= 100, "{stats}");
        assert!(stats.wakeup_latency.sum() <= stats.run_delay.sum(), "{stats}");
    }
}

#[test]
fn sums_of_histograms_are_what_groups_have_used() {
    let runtime = runtime(2);
    let stats = watched(&runtime, || {
        runtime.run(|| {
            uthread::scope(|s| {
                for _ in 0..20 {
                    s.spawn(|| (0..20).for_each(|_| uthread::yield_now()));
                }
            });
        });
        at_rest(&runtime)
    });
    let group = used_at_rest(&runtime, &Group::current());
    assert_eq!(stats.slice_length.sum(), group.run_time);
    assert_eq!(stats.run_delay.sum(), group.run_delay);
    assert_eq!(stats.slice_length.count(), group.turns);
}

#[test]
fn a_thread_that_only_yields_has_delays_but_no_wake_ups() {
    let runtime = runtime(1);
    watched(&runtime, || {
        let between = runtime.run(|| {
            let before = uthread::stats();
            uthread::yield_now();
            uthread::yield_now();
            uthread::stats().since(&before)
        });
        assert_eq!((between.run_delay.count(), between.wakeup_latency.count()), (2, 0));
        assert_eq!((between.yields, between.threads_live), (2, 1));
    });
}

#[test]
fn an_op_lasts_until_its_thread_is_runnable_by_kind() {
    const WAIT: Duration = Duration::from_millis(5);
    let runtime = runtime(2);
    let stats = watched(&runtime, || {
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let client = uthread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                uthread::sleep(WAIT);
                stream.write_all(b"x").unwrap();
            });
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            client.join().unwrap();
        });
        at_rest(&runtime)
    });
    let ops = &stats.op_latency;
    assert_eq!((ops.accept.count(), ops.connect.count(), ops.send.count()), (1, 1, 1), "{stats}");
    assert!(ops.recv.count() >= 1 && ops.recv.count() + 3 == stats.completions, "{stats}");
    // The receiver may have been late to begin.
    assert!(ops.recv.max() > Duration::ZERO && ops.accept.sum() > Duration::ZERO, "{stats}");
}

#[test]
fn a_receiver_that_waits_is_told_from_one_that_does_not() {
    const WAIT: Duration = Duration::from_millis(5);
    let runtime = runtime(1);
    let stats = watched(&runtime, || {
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || std::net::TcpStream::connect(addr).unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut peer = client.join().unwrap();
            let receiver = uthread::spawn(move || stream.read_exact(&mut [0]).unwrap());
            // With one worker, the receiver waits when this goes on.
            uthread::sleep(WAIT);
            peer.write_all(b"x").unwrap();
            receiver.join().unwrap();
        });
        at_rest(&runtime)
    });
    let recv = &stats.op_latency.recv;
    assert!(recv.sum() >= WAIT && recv.max() >= WAIT, "{stats}");
    assert!(recv.quantile(1.0) >= WAIT - WAIT / 8, "{stats}");
}

#[test]
fn metrics_are_the_fields_of_the_snapshot() {
    let runtime = runtime(2);
    runtime.run(|| uthread::spawn(uthread::yield_now).join().unwrap());
    let stats = at_rest(&runtime);
    let find = |name: &str| stats.metrics().find(|(metric, _)| metric.name == name).unwrap();
    let (metric, value) = find("switches");
    assert_eq!((metric.kind, value), (MetricKind::Counter, MetricValue::Number(stats.switches)));
    let (metric, value) = find("workers");
    assert_eq!((metric.kind, value), (MetricKind::Gauge, MetricValue::Number(2)));
    let (metric, value) = find("run_delay_seconds");
    assert_eq!(metric.kind, MetricKind::Histogram);
    assert_eq!(value, MetricValue::Histogram(&stats.run_delay));
    let ops = stats.metrics().filter_map(|(metric, _)| metric.label);
    assert_eq!(
        ops.take(6).collect::<Vec<_>>(),
        ["accept", "connect", "recv", "send", "recvmsg", "sendmsg"].map(|name| ("op", name))
    );
}

/// For how long the kernel has let an OS thread of this process run.
fn cpu_time(os_thread: u32) -> Duration {
    /// A clock of one OS thread (CPUCLOCK_PERTHREAD), which counts what the scheduler gave it (CPUCLOCK_SCHED).
    const OF_THREAD: i32 = 4 | 2;
    let clock = (!os_thread.cast_signed()) << 3 | OF_THREAD;
    let time = nix::time::ClockId::from_raw(clock).now().expect("the OS thread exists");
    Duration::from(time)
}

#[test]
fn a_worker_was_busy_for_as_long_as_the_kernel_says_and_no_longer_than_it_existed() {
    /// Work within waits is known a millisecond later.
    const LATE: Duration = Duration::from_millis(1);
    let began = Instant::now();
    let runtime = Runtime::builder().workers(2).name("busy").build().unwrap();
    watched(&runtime, || {
        let talk = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let sender = uthread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                (0..500).for_each(|_| stream.write_all(&[0; 4096]).unwrap());
            });
            let mut stream = listener.accept().unwrap().0;
            assert_eq!(std::io::copy(&mut stream, &mut std::io::sink()).unwrap(), 500 * 4096);
            sender.join().unwrap();
        };
        runtime.run(|| {
            let threads = [uthread::spawn(talk), uthread::spawn(talk)];
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
        at_rest(&runtime);
    });
    let used: Vec<_> = runtime.workers().iter().map(|w| cpu_time(w.os_thread)).collect();
    let workers = runtime.workers();
    let existed = began.elapsed();
    for (worker, used) in workers.iter().zip(&used) {
        assert!(worker.busy + LATE >= *used, "{used:?} of {worker:?}");
        assert!(worker.busy <= existed, "{existed:?} of {worker:?}");
        let name = format!("/proc/self/task/{}/comm", worker.os_thread);
        assert_eq!(std::fs::read_to_string(name).unwrap(), format!("busy-{}\n", worker.index));
    }
    let of = |f: fn(&uthread::WorkerStat) -> u64| workers.iter().map(f).sum::<u64>();
    let stats = at_rest(&runtime);
    assert_eq!((of(|w| w.switches), of(|w| w.queued)), (stats.switches, 0));
    assert!(stats.busy >= workers.iter().map(|w| w.busy).sum());
}

#[test]
fn a_worker_that_runs_is_busy_all_the_time_and_one_that_sleeps_is_not() {
    const SPIN: Duration = Duration::from_millis(20);
    let runtime = runtime(1);
    watched(&runtime, || {
        let (busy, took) = runtime.run(|| {
            let (before, began) = (uthread::stats(), Instant::now());
            while began.elapsed() < SPIN {}
            let busy = uthread::stats().since(&before).busy;
            (busy, began.elapsed())
        });
        assert!(busy >= SPIN && busy <= took + Duration::from_millis(1), "{busy:?} of {took:?}");
        let began = Instant::now();
        let mut before = at_rest(&runtime);
        // What it does between sleeps takes time, if others want the core.
        while runtime.stats().busy != before.busy {
            assert!(began.elapsed() < Duration::from_secs(20), "it never sleeps");
            before = runtime.stats();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn groups_are_listed_with_what_they_have_used_as_long_as_they_exist() {
    let runtime = runtime(1);
    let is_listed = |name: &str| Group::all().iter().any(|group| group.name() == name);
    let group = Group::builder().name("listed").build().unwrap();
    assert_eq!(Group::all()[0].name(), "default");
    assert!(is_listed("listed"));
    let thread = Builder::new().group(&group).spawn_in(&runtime, uthread::yield_now).unwrap();
    thread.join().unwrap();
    at_rest(&runtime);
    let used = used_at_rest(&runtime, &group);
    let of_group = |name: &str| {
        let groups = runtime.groups();
        groups.into_iter().find(|(group, _)| group.name() == name).unwrap().1
    };
    assert_eq!(of_group("listed"), used);
    assert_eq!((of_group("listed").turns, of_group("default").turns), (2, 0));
    let before = of_group("listed");
    assert_eq!(of_group("listed").since(&before), SchedStat::default());
    drop(group);
    // Whoever lists groups at the same time has a handle for a moment.
    let began = Instant::now();
    while is_listed("listed") {
        assert!(began.elapsed() < Duration::from_secs(20), "it stays");
    }
}

#[test]
fn groups_that_come_and_go_while_others_list_them_have_their_own_names() {
    std::thread::scope(|s| {
        for maker in 0..2 {
            s.spawn(move || {
                for i in 0..2000 {
                    let name = format!("{maker} {i}");
                    let group = Group::builder().name(&name).build().unwrap();
                    assert_eq!(group.name(), name);
                }
            });
        }
        s.spawn(|| {
            for _ in 0..500 {
                for group in Group::all() {
                    // It exists as long as the handle does, and so keeps its name.
                    assert_eq!(group.name(), group.name());
                }
            }
        });
    });
}
