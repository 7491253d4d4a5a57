//! The flight recorder tells what happened.

#[path = "common/watchdog.rs"]
mod watchdog;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use uthread::trace::{Cause, Event, Reason, Recorder, Trace};
use uthread::{Runtime, ThreadId, WaitReason};
use watchdog::watched;

/// Events that suffice for all that a test does.
const PLENTY: usize = 1 << 16;

/// More than what the clocks of two workers differ by.
const SKEW: Duration = Duration::from_micros(50);

fn runtime(workers: usize, events: usize) -> Runtime {
    Runtime::builder().workers(workers).trace_events(events).build().unwrap()
}

fn count(trace: &Trace, is_meant: impl Fn(Event) -> bool) -> u64 {
    trace.events().filter(|record| is_meant(record.event)).count() as u64
}

fn left_for(wanted: Reason) -> impl Fn(Event) -> bool {
    move |event| matches!(event, Event::SwitchOut { reason, .. } if reason == wanted)
}

fn wakes(trace: &Trace, woken: ThreadId) -> Vec<Cause> {
    let cause = |event| match event {
        Event::Wake { thread, cause, .. } if thread == woken => Some(cause),
        _ => None,
    };
    trace.events().filter_map(|record| cause(record.event)).collect()
}

/// Why a thread left its worker, each time.
fn reasons(trace: &Trace, left: ThreadId) -> Vec<Reason> {
    let reason = |event| match event {
        Event::SwitchOut { thread, reason, .. } if thread == left => Some(reason),
        _ => None,
    };
    trace.events().filter_map(|record| reason(record.event)).collect()
}

#[test]
fn switches_in_the_trace_are_as_many_as_the_counters_say() {
    for workers in [1, 3] {
        let runtime = runtime(workers, PLENTY);
        watched(&runtime, || {
            runtime.run(|| {
                uthread::scope(|s| {
                    for _ in 0..4 {
                        s.spawn(|| {
                            for _ in 0..500 {
                                uthread::yield_now();
                                uthread::current().unpark();
                                uthread::park();
                            }
                        });
                    }
                    let parked = s.spawn(|| (0..100).for_each(|_| uthread::park()));
                    while !parked.is_finished() {
                        parked.thread().unpark();
                        uthread::yield_now();
                    }
                });
            });
        });
        // The worker of the last thread counts before it records, and may have done the one only.
        let settled = || {
            let (before, trace, after) = (runtime.stats(), runtime.trace(), runtime.stats());
            let ended = count(&trace, left_for(Reason::End));
            (before == after && ended == after.finished && after.threads_live == 0)
                .then_some((after, trace))
        };
        let (stats, trace) = std::iter::repeat_with(settled).flatten().next().unwrap();
        assert_eq!(trace.overwritten(), 0);
        assert_eq!(count(&trace, |e| matches!(e, Event::SwitchIn { .. })), stats.switches);
        assert_eq!(count(&trace, |e| matches!(e, Event::SwitchOut { .. })), stats.switches);
        assert_eq!(count(&trace, left_for(Reason::Yield)), stats.yields);
        let parks = [WaitReason::Park, WaitReason::Scope].map(Reason::Wait);
        let parked = |e| parks.iter().any(|reason| left_for(*reason)(e));
        assert_eq!(count(&trace, parked), stats.parks);
        assert_eq!(count(&trace, left_for(Reason::Interrupt)), stats.forced_switches);
        assert_eq!(count(&trace, |e| matches!(e, Event::Spawn { .. })), stats.spawned);
        assert_eq!(count(&trace, |e| matches!(e, Event::Steal { .. })), stats.steals);
    }
}

#[test]
fn a_ring_that_is_too_small_keeps_the_newest() {
    let runtime = runtime(1, 64);
    let last = watched(&runtime, || {
        runtime.run(|| {
            (0..1000).for_each(|_| uthread::spawn(uthread::yield_now).join().unwrap());
            let last = uthread::spawn(uthread::yield_now);
            let id = last.thread().id();
            last.join().unwrap();
            id
        })
    });
    let trace = runtime.trace();
    assert!(trace.overwritten() > 1000);
    assert!((64..=128).contains(&trace.events().len()), "{}", trace.events().len());
    let turns = count(&trace, |e| matches!(e, Event::SwitchIn { thread, .. } if thread == last));
    assert_eq!(turns, 2);
}

#[test]
fn a_recorder_that_is_switched_off_tells_nothing() {
    let runtime = runtime(1, 0);
    runtime.run(|| uthread::spawn(uthread::yield_now).join().unwrap());
    assert_eq!(runtime.trace().events().len(), 0);
}

#[test]
fn who_unparks_and_who_is_joined_is_named_as_the_waker() {
    // Whoever is woken must not run before it is waited for.
    let builder = Runtime::builder().workers(1).trace_events(PLENTY).preemption(false);
    let runtime = builder.build().unwrap();
    let (own, parked, joined) = watched(&runtime, || {
        runtime.run(|| {
            let parked = uthread::spawn(uthread::park);
            // With one worker, it has parked afterwards.
            uthread::yield_now();
            parked.thread().unpark();
            let ids = (uthread::current().id(), parked.thread().id());
            parked.join().unwrap();
            let joined = uthread::spawn(|| {});
            let id = joined.thread().id();
            joined.join().unwrap();
            (ids.0, ids.1, id)
        })
    });
    let trace = runtime.trace();
    assert_eq!(wakes(&trace, parked), [Cause::Thread(own)]);
    let wakers = wakes(&trace, own);
    assert!(wakers.ends_with(&[Cause::Thread(parked), Cause::Thread(joined)]), "{wakers:?}");
    let parents: Vec<_> = trace
        .events()
        .filter_map(|record| match record.event {
            Event::Spawn { thread, parent, .. } => Some((thread, parent)),
            _ => None,
        })
        .collect();
    assert_eq!(parents, [(own, None), (parked, Some(own)), (joined, Some(own))]);
}

#[test]
fn a_thread_that_parks_is_told_from_one_that_joins_and_one_that_is_in_a_scope() {
    // None ends before it is waited for.
    let builder = Runtime::builder().workers(1).trace_events(PLENTY).preemption(false);
    let runtime = builder.build().unwrap();
    let id = watched(&runtime, || {
        runtime.run(|| {
            uthread::park_timeout(Duration::from_millis(1));
            uthread::spawn(|| {}).join().unwrap();
            uthread::scope(|s| {
                s.spawn(|| {});
            });
            uthread::current().id()
        })
    });
    let waits = [WaitReason::Park, WaitReason::Join, WaitReason::Scope].map(Reason::Wait);
    assert_eq!(reasons(&runtime.trace(), id)[..3], waits);
}

#[test]
fn a_wake_up_from_outside_and_one_from_another_runtime_are_told_apart() {
    let (here, other) = (runtime(1, PLENTY), runtime(1, PLENTY));
    let parks = || {
        here.spawn(|| {
            uthread::park();
            uthread::current().id()
        })
    };
    let is_parked = |id| {
        while !reasons(&here.trace(), id).contains(&Reason::Wait(WaitReason::Park)) {
            std::thread::yield_now();
        }
    };
    let woken = parks();
    is_parked(woken.thread().id());
    woken.thread().unpark();
    let id = woken.join().unwrap();
    let causes = wakes(&here.trace(), id);
    // It was notified, at the latest, when it had left and before it was committed.
    assert!(matches!(causes[..], [Cause::Outside | Cause::Before]), "{causes:?}");
    let woken = parks();
    is_parked(woken.thread().id());
    let waker = other.run(|| {
        woken.thread().unpark();
        uthread::current().id()
    });
    let id = woken.join().unwrap();
    let causes = wakes(&here.trace(), id);
    assert!(causes == [Cause::Thread(waker)] || causes == [Cause::Before], "{causes:?}");
}

#[test]
fn waits_for_operations_and_for_time_are_told_with_what_ends_them() {
    let runtime = runtime(1, PLENTY);
    let id = watched(&runtime, || {
        runtime.run(|| {
            let listener = uthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = uthread::spawn(move || listener.accept().unwrap().0.write_all(b"x"));
            let mut stream = uthread::net::TcpStream::connect(address).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            server.join().unwrap().unwrap();
            uthread::sleep(Duration::from_millis(1));
            uthread::park_timeout(Duration::from_millis(1));
            uthread::current().id()
        })
    });
    let trace = runtime.trace();
    for operation in [WaitReason::Accept, WaitReason::Connect, WaitReason::Recv, WaitReason::Send] {
        let begun = count(&trace, left_for(Reason::Wait(operation)));
        let completed = count(
            &trace,
            |e| matches!(e, Event::Wake { cause, .. } if cause == Cause::Completion(operation)),
        );
        assert_eq!((begun, completed), (1, 1), "{operation:?}");
    }
    assert!(wakes(&trace, id).ends_with(&[Cause::Timer, Cause::Timeout]));
    assert_eq!(count(&trace, left_for(Reason::Wait(WaitReason::Sleep))), 1);
    assert!(count(&trace, |e| e == Event::Sleep) > 0);
    assert!(count(&trace, |e| e == Event::Sleep) - count(&trace, |e| e == Event::Awake) <= 1);
}

#[test]
fn a_thread_that_blocks_is_followed_to_its_helper_and_back() {
    let runtime = runtime(1, PLENTY);
    if runtime.thread_blocks().is_err() {
        return;
    }
    let hosted = |event| matches!(event, Event::Host { .. });
    let id = watched(&runtime, || {
        runtime.run(|| {
            // It is on its worker as long as no helper has started.
            while count(&uthread::trace(), hosted) == 0 {
                uthread::blocking(|| {});
            }
            uthread::current().id()
        })
    });
    let trace = runtime.trace();
    let of_it = |record: &uthread::trace::Record| match record.event {
        Event::Host { thread, .. } | Event::Return { thread, .. } => {
            assert_eq!(record.recorder, Recorder::Other);
            thread == id
        }
        Event::SwitchOut { thread, reason: Reason::Block, .. } => thread == id,
        _ => false,
    };
    let events: Vec<Event> = trace.events().filter(of_it).map(|record| record.event).collect();
    assert!(!events.is_empty());
    for stay in events.chunks(3) {
        let expected = |stay: &[Event]| {
            matches!(stay, [Event::SwitchOut { .. }, Event::Host { .. }, Event::Return { .. }])
        };
        assert!(expected(stay), "{events:?}");
    }
}

#[test]
fn names_of_threads_are_in_the_trace_as_far_as_there_is_room() {
    let runtime = runtime(1, PLENTY);
    let ids = runtime.run(|| {
        let names = ["short", "just sixteen by.", "a name of more than sixteen bytes"];
        names.map(|name| {
            let builder = uthread::Builder::new().name(name.to_owned());
            let thread = builder.spawn(|| {}).unwrap();
            let id = thread.thread().id();
            thread.join().unwrap();
            id
        })
    });
    let mut trace = runtime.trace();
    let names = ids.map(|id| trace.name(id));
    assert_eq!(names, [Some("short"), Some("just sixteen by."), Some("a name of more t")]);
    trace.set_name(ids[2], "a name of more than sixteen bytes");
    assert_eq!(trace.name(ids[2]), Some("a name of more than sixteen bytes"));
}

/// Each thread's turns, as far as they have ended, must not overlap, and each worker's events be in order.
fn check(trace: &Trace, workers: usize) {
    let mut last = vec![Duration::ZERO; workers];
    let mut present: HashMap<usize, (ThreadId, Duration)> = HashMap::new();
    let mut turns: HashMap<ThreadId, Vec<(Duration, Duration)>> = HashMap::new();
    for record in trace.events() {
        let Recorder::Worker(worker) = record.recorder else { continue };
        assert!(record.at >= last[worker], "time went back on worker {worker}");
        last[worker] = record.at;
        match record.event {
            Event::SwitchIn { thread, .. } => {
                let before = present.insert(worker, (thread, record.at));
                assert_eq!(before, None, "two threads run on worker {worker}");
            }
            Event::SwitchOut { thread, .. } => {
                let (began, at) = present.remove(&worker).expect("one that leaves was there");
                assert_eq!(began, thread);
                turns.entry(thread).or_default().push((at, record.at));
            }
            _ => {}
        }
    }
    for turns in turns.values_mut() {
        turns.sort();
        for pair in turns.windows(2) {
            assert!(pair[0].1 <= pair[1].0 + SKEW, "two turns at a time: {pair:?}");
        }
    }
}

#[test]
fn traces_taken_while_workers_go_on_are_in_order_and_no_thread_runs_twice() {
    const WORKERS: usize = 3;
    let runtime = runtime(WORKERS, 1 << 10);
    let stop = AtomicBool::new(false);
    watched(&runtime, || {
        std::thread::scope(|s| {
            let work = s.spawn(|| {
                runtime.run(|| {
                    uthread::scope(|s| {
                        for _ in 0..8 {
                            s.spawn(|| {
                                while !stop.load(Relaxed) {
                                    uthread::yield_now();
                                    uthread::spawn(uthread::yield_now).join().unwrap();
                                }
                            });
                        }
                    });
                });
            });
            let mut seen = 0;
            for _ in 0..200 {
                let trace = runtime.trace();
                check(&trace, WORKERS);
                seen += trace.events().len();
                std::thread::yield_now();
            }
            stop.store(true, Relaxed);
            work.join().unwrap();
            assert!(seen > 0);
        });
    });
}

#[test]
fn a_green_thread_traces_the_runtime_that_it_is_on() {
    let runtime = runtime(1, PLENTY);
    let (id, trace) = runtime.run(|| (uthread::current().id(), uthread::trace()));
    let last = trace.events().filter(|r| r.recorder == Recorder::Worker(0)).last().unwrap();
    assert!(matches!(last.event, Event::SwitchIn { thread, .. } if thread == id));
}
