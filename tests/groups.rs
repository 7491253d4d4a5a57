//! Groups of threads share the CPU by their weights, and stay within their caps.

#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use subprocess::in_child;
use uthread::{Builder, Group, Runtime, SchedStat};
use watchdog::watched;

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).slice(Duration::from_millis(1)).build().unwrap()
}

fn group(name: &str, weight: u32) -> Group {
    Group::builder().name(name).weight(weight).build().unwrap()
}

/// Runs so many hogs in each group until the scenario returns.
fn among_hogs(runtime: &Runtime, groups: &[&Group], hogs: usize, scenario: impl FnOnce() + Send) {
    let over = AtomicBool::new(false);
    watched(runtime, || {
        runtime.run(|| {
            uthread::scope(|s| {
                for group in groups {
                    for _ in 0..hogs {
                        let hog = || {
                            while !over.load(Relaxed) {
                                std::hint::spin_loop()
                            }
                        };
                        Builder::new().group(group).spawn_scoped(s, hog).unwrap();
                    }
                }
                let _over = OnDrop(&over);
                scenario();
            });
        });
    });
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn used(runtime: &Runtime, group: &Group) -> f64 {
    runtime.group_stats(group).run_time.as_secs_f64()
}

/// Waits until the groups together have used so much more.
fn let_pass(runtime: &Runtime, groups: &[&Group], seconds: f64) {
    let sum = || groups.iter().map(|g| used(runtime, g)).sum::<f64>();
    let end = sum() + seconds;
    while sum() < end {
        uthread::sleep(Duration::from_millis(1));
    }
}

/// Waits until what the groups have used from now on is in proportion to the weights, which takes the longer the
/// more often the machine takes the processor away in the middle of a turn.
fn until_in_proportion(runtime: &Runtime, groups: &[&Group], weights: &[u32]) {
    let before: Vec<f64> = groups.iter().map(|g| used(runtime, g)).collect();
    let all: u32 = weights.iter().sum();
    loop {
        let_pass(runtime, groups, 0.05);
        let got: Vec<f64> = groups.iter().zip(&before).map(|(g, b)| used(runtime, g) - b).collect();
        let sum: f64 = got.iter().sum();
        let due = weights.iter().map(|w| f64::from(*w) / f64::from(all));
        if got.iter().zip(due).all(|(got, due)| (got / sum - due).abs() < 0.03) {
            return;
        }
    }
}

#[test]
fn that_always_have_work_get_their_shares() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let weights = [100, 200, 700];
        let groups = weights.map(|w| group("hogs", w));
        let groups: Vec<&Group> = groups.iter().collect();
        among_hogs(&runtime, &groups, 3, || until_in_proportion(&runtime, &groups, &weights));
    }
}

#[test]
fn share_anew_when_a_weight_changes() {
    let runtime = runtime(1);
    let (a, b) = (group("a", 100), group("b", 100));
    among_hogs(&runtime, &[&a, &b], 1, || {
        for weight in [300, 100] {
            a.set_weight(weight);
            assert_eq!(a.weight(), weight);
            until_in_proportion(&runtime, &[&a, &b], &[weight, 100]);
        }
    });
}

#[test]
fn that_are_alone_get_everything() {
    let runtime = runtime(1);
    let (alone, _idle) = (group("alone", 1), group("idle", 10_000));
    among_hogs(&runtime, &[&alone], 2, || {
        let (start, before) = (Instant::now(), used(&runtime, &alone));
        let_pass(&runtime, &[&alone], 0.05);
        let part = (used(&runtime, &alone) - before) / start.elapsed().as_secs_f64();
        assert!(part > 0.8, "{part:.2} of the worker's time");
    });
}

#[test]
fn within_their_share_are_served_though_heavy_ones_compute() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let (heavy, light) = (group("heavy", 10_000), group("light", 10));
        let served = AtomicU64::new(0);
        among_hogs(&runtime, &[&heavy], 4, || {
            let body = || {
                for _ in 0..100 {
                    uthread::sleep(Duration::from_micros(500));
                    served.fetch_add(1, Relaxed);
                }
            };
            uthread::scope(|s| {
                Builder::new().group(&light).spawn_scoped(s, body).unwrap();
            });
        });
        assert_eq!(served.load(Relaxed), 100);
        let stats = runtime.group_stats(&light);
        assert!(stats.wakeups >= 100 && stats.turns >= 100, "{stats:?}");
    }
}

#[test]
fn with_a_cap_wait_for_the_next_period_though_nobody_else_wants_the_time() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let (quota, period) = (Duration::from_millis(2), Duration::from_millis(10));
        let capped = Group::builder().name("capped").cap(quota, period).build().unwrap();
        among_hogs(&runtime, &[&capped], 2, || {
            let start = Instant::now();
            // What the kernel has kept a worker from it counts as used, too, and is missing later.
            let part = || used(&runtime, &capped) / start.elapsed().as_secs_f64();
            let throttled = || runtime.group_stats(&capped).throttled;
            while throttled() < Duration::from_millis(50) || part() > 0.25 {
                uthread::sleep(Duration::from_millis(1));
            }
            // Without the cap they go on.
            capped.set_cap(None);
            let_pass(&runtime, &[&capped], 0.02);
        });
    }
}

#[test]
fn that_get_a_cap_wait_though_their_only_thread_is_alone_and_computes() {
    let runtime = runtime(1);
    let hogs = group("hogs", 100);
    let over = AtomicBool::new(false);
    watched(&runtime, || {
        std::thread::scope(|s| {
            s.spawn(|| {
                let hog = || {
                    while !over.load(Relaxed) {
                        std::hint::spin_loop()
                    }
                };
                runtime.run(|| {
                    uthread::scope(|s| {
                        Builder::new().group(&hogs).spawn_scoped(s, hog).unwrap();
                    });
                });
            });
            let _over = OnDrop(&over);
            while used(&runtime, &hogs) < 0.05 {
                std::thread::sleep(Duration::from_millis(1));
            }
            hogs.set_cap(Some((Duration::from_millis(2), Duration::from_millis(10))));
            while runtime.group_stats(&hogs).throttled < Duration::from_millis(20) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    });
}

/// The first turn of a thread that runs alone on a worker, for long, is looked at as well.
#[test]
fn that_have_a_worker_for_themselves_give_way_to_what_is_queued_elsewhere() {
    static OVER: AtomicBool = AtomicBool::new(false);
    static MORE: AtomicBool = AtomicBool::new(false);
    fn hog() {
        while !OVER.load(Relaxed) {
            std::hint::spin_loop();
        }
    }
    let runtime = runtime(2);
    let (light, heavy) = (group("light", 100), group("heavy", 900));
    let parent = move || {
        while !MORE.load(Relaxed) {
            std::hint::spin_loop();
        }
        // In the parent's group, and on its worker.
        let others = [(); 2].map(|()| uthread::spawn(hog));
        hog();
        others.into_iter().for_each(|other| other.join().unwrap());
    };
    watched(&runtime, || {
        let parent = Builder::new().group(&heavy).spawn_in(&runtime, parent).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let alone = Builder::new().group(&light).spawn_in(&runtime, hog).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        MORE.store(true, Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        until_in_proportion(&runtime, &[&light, &heavy], &[100, 900]);
        OVER.store(true, Relaxed);
        parent.join().unwrap();
        alone.join().unwrap();
    });
}

#[test]
fn are_those_of_the_spawning_thread_or_of_the_builder() {
    let runtime = runtime(1);
    let (a, b) = (group("a", 1), group("b", 1));
    let names = runtime.run(|| {
        let name = || Group::current().name();
        let body = move || {
            let inherited = uthread::spawn(name).join().unwrap();
            let chosen = Builder::new().group(&b).spawn(name).unwrap().join().unwrap();
            [name(), inherited, chosen]
        };
        Builder::new().group(&a).spawn(body).unwrap().join().unwrap()
    });
    assert_eq!(names, ["a", "a", "b"]);
    assert_eq!(runtime.run(|| Group::current().name()), "default");
    assert_eq!(Group::current().name(), "default");
}

#[test]
fn are_limited_in_number_and_make_room_when_they_are_gone() {
    // Others' groups would take places meanwhile.
    let output = in_child("are_limited_in_number_and_make_room_when_they_are_gone", &[], || {
        let mut groups: Vec<Group> = (0..63).map(|_| group("one of many", 1)).collect();
        let error = Group::builder().build().unwrap_err();
        assert!(error.to_string().contains("groups"), "{error}");
        let runtime = runtime(1);
        let last = groups.pop().unwrap();
        let holds = AtomicBool::new(true);
        watched(&runtime, || {
            runtime.run(|| {
                uthread::scope(|s| {
                    let body = || {
                        while holds.load(Relaxed) {
                            uthread::yield_now()
                        }
                    };
                    let thread = Builder::new().group(&last).spawn_scoped(s, body).unwrap();
                    drop(last);
                    assert!(Group::builder().build().is_err(), "a thread keeps its group");
                    holds.store(false, Relaxed);
                    thread.join().unwrap();
                    // Its place is free when the worker has retired it.
                    while Group::builder().build().is_err() {
                        uthread::yield_now();
                    }
                });
            });
        });
        let reborn = group("reborn", 1);
        assert_eq!(runtime.group_stats(&reborn), SchedStat::default(), "nothing of the last one");
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn account_for_what_their_threads_do() {
    let runtime = runtime(1);
    let work = group("work", 100);
    let own = runtime.run(|| {
        let body = || {
            for _ in 0..10 {
                uthread::yield_now();
                uthread::sleep(Duration::from_micros(10));
            }
            uthread::schedstat()
        };
        Builder::new().group(&work).spawn(body).unwrap().join().unwrap()
    });
    assert!(own.turns >= 11 && own.wakeups == 10, "{own:?}");
    assert!(own.voluntary_switches >= 10 && own.run_time > Duration::ZERO, "{own:?}");
    let group = runtime.group_stats(&work);
    assert!(group.turns >= own.turns && group.run_time >= own.run_time, "{group:?} {own:?}");
    assert_eq!(group.wakeups, own.wakeups);
}
