//! The rows that are times: switches, hand-overs and spawns; and the floors by themselves.

use std::cell::RefCell;
use std::io;
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::floors;
use crate::machine::{Pin, two_cores};
use crate::measure::{Comparison, Part, Plan, Samples, Stretch};
use crate::report::{Outcome, figure, spread};
use crate::threads::{Green, Os, Threads};
use crate::workloads::{Observer, Player, park_ping_pong, spawning, yielding};

pub(crate) const YIELD_OF_TWO: &str = "yield, 2 threads";
pub(crate) const SPAWN_ONE: &str = "spawn+join, one by one";
pub(crate) const SPAWN_BATCH: &str = "spawn+join, batches of 1,000";

type Compare = fn(&Plan) -> io::Result<Comparison>;

/// The comparisons, by name; on one core unless it says two.
const COMPARISONS: &[(&str, Compare)] = &[
    (YIELD_OF_TWO, |plan| yields(plan, 2)),
    ("yield, 1,000 threads", |plan| yields(plan, 1_000)),
    ("park round trip, one core", hand_overs_on_one_core),
    ("park round trip, two cores shared", hand_overs_on_two_cores),
    ("park round trip, two cores, one each", hand_overs_between_cores),
    (SPAWN_ONE, |plan| spawns(plan, 1)),
    (SPAWN_BATCH, |plan| spawns(plan, 1_000)),
];

type MakeFloor = fn() -> io::Result<Stretch<'static>>;

/// The floors, by name.
const FLOORS: &[(&str, MakeFloor)] = &[
    ("coroutine resume + suspend", || floors::coroutine_round_trip(1)),
    ("coroutine resume + suspend, 1,000 in turn", || floors::coroutine_round_trip(1_000)),
    ("coroutine create + run", || floors::coroutine_life::<0>(1)),
    ("coroutine create + run, batches of 1,000", || floors::coroutine_life::<0>(1_000)),
    ("thread pointer write", floors::thread_pointer_write),
    ("time-stamp counter read", || Ok(floors::cycle_counter())),
    ("clock read", || Ok(floors::clock())),
    ("system call", || Ok(floors::system_call())),
    ("ring no-op round trip", floors::ring_round_trip),
    ("minor page fault", || Ok(floors::page_fault())),
    ("cache line round trip, two cores", || two_cores().map(floors::cache_line_round_trip)),
];

#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) samples: Samples,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) comparison: Comparison,
    pub(crate) uthread_to_std: f64,
    pub(crate) uthread_to_floor: Option<f64>,
}

impl Row {
    fn new(name: &'static str, comparison: Comparison) -> Row {
        let Comparison { uthread, std, floor, .. } = &comparison;
        let uthread_to_std = uthread.median / std.median;
        let uthread_to_floor = floor.as_ref().map(|floor| uthread.median / floor.median);
        Row { name, comparison, uthread_to_std, uthread_to_floor }
    }
}

/// Measures the floors in turns, on one core.
pub(crate) fn floors(
    plan: &Plan,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<Vec<Outcome<Floor>>> {
    let _pin = Pin::to_first()?;
    let mut outcomes = Vec::new();
    let (mut names, mut stretches) = (Vec::new(), Vec::new());
    for (name, stretch) in FLOORS.iter().filter(|(name, _)| wanted(name)) {
        match stretch() {
            Ok(stretch) => {
                names.push(name);
                stretches.push(stretch);
            }
            Err(error) => outcomes.push(Outcome { name: name.to_string(), result: Err(error) }),
        }
    }
    eprintln!("floors");
    let samples = plan.in_turns(stretches);
    outcomes.extend(names.into_iter().zip(samples).map(|(name, samples)| Outcome {
        name: name.to_string(),
        result: Ok(Floor { name, samples }),
    }));
    Ok(outcomes)
}

/// Measures the comparisons, one after the other.
pub(crate) fn comparisons(plan: &Plan, wanted: impl Fn(&str) -> bool) -> Vec<Outcome<Row>> {
    let measure = |(name, compare): &(&'static str, Compare)| {
        eprintln!("{name}");
        let result = compare(plan).map(|comparison| Row::new(name, comparison));
        Outcome { name: name.to_string(), result }
    };
    COMPARISONS.iter().filter(|(name, _)| wanted(name)).map(measure).collect()
}

fn yields(plan: &Plan, threads: usize) -> io::Result<Comparison> {
    let _pin = Pin::to_first()?;
    let green = Green::new(1)?;
    let floor = floors::switches(1.0, 1);
    let mut comparison =
        plan.compare(yielding_on(&green, threads), yielding_on(&Os, threads), floor);
    // A yield that returns to the thread that yields is cheap and beside the point.
    let shares = [switched(&green, threads), switched(&Os, threads)];
    comparison.remark(percentages("yields that switched", shares));
    Ok(comparison)
}

fn yielding_on<T: Threads>(host: &T, threads: usize) -> Stretch<'_> {
    Box::new(move |yields| host.run(|| yielding::<T>(threads, yields, |_| ())))
}

/// The share of yields after which another thread runs.
fn switched<T: Threads>(host: &T, threads: usize) -> f64 {
    let observer = Observer::new();
    let seen = observer.clone();
    host.run(|| yielding::<T>(threads, OBSERVED, move |thread| seen.saw(thread)));
    observer.share()
}

/// Turns to observe: plenty for a percentage.
const OBSERVED: usize = 20_000;

fn percentages(what: &str, [uthread, std]: [f64; 2]) -> String {
    format!("{what}: uthread {:.0} %, std {:.0} %", uthread * 100.0, std * 100.0)
}

/// A round trip on one core is two switches.
fn hand_overs_on_one_core(plan: &Plan) -> io::Result<Comparison> {
    let _pin = Pin::to_first()?;
    let green = Green::new(1)?;
    let (uthread, std) = (together(&green), together(&Os));
    let floor = floors::switches(2.0, 1);
    Ok(plan.compare(handing_over::<Green>(uthread), handing_over::<Os>(std), floor))
}

/// Each side's scheduler may use both cores, and may prefer to use one.
fn hand_overs_on_two_cores(plan: &Plan) -> io::Result<Comparison> {
    let cores = two_cores()?;
    let _pin = Pin::to(&cores)?;
    let green = Green::new(cores.len())?;
    let (uthread, std) = (together(&green), together(&Os));
    let mut comparison = compare_with_sleeps(plan, &uthread, &std, floors::switches(2.0, 1));
    let shares = [changed_core::<Green>(uthread), changed_core::<Os>(std)];
    comparison.remark(percentages("turns that changed the core", shares));
    Ok(comparison)
}

/// The players sit on different cores; a cache line at the least has to go there and back. The green
/// ones belong to two runtimes of one worker each.
///
/// As a rule each turn wakes a sleeping core. But two players that are both awake can stay so for
/// thousands of turns, each finding its turn before it sleeps, and are then far faster.
fn hand_overs_between_cores(plan: &Plan) -> io::Result<Comparison> {
    let [here, there] = two_cores()?;
    let worker_there = {
        let _pin = Pin::to(&[there])?;
        Green::new(1)?
    };
    let _pin = Pin::to(&[here])?;
    let worker_here = Green::new(1)?;
    let uthread = apart(&worker_here, &worker_there, there);
    let std = apart(&Os, &Os, there);
    let stretch = floors::cache_line_round_trip([here, there]);
    Ok(compare_with_sleeps(plan, uthread, std, Ok(vec![Part { times: 1.0, stretch }])))
}

/// Times mean little between cores without the number of sleeps in them, so a remark gives those of
/// the measured rounds.
fn compare_with_sleeps(
    plan: &Plan,
    uthread: impl Fn(Player, Player),
    std: impl Fn(Player, Player),
    floor: io::Result<Vec<Part>>,
) -> Comparison {
    let sleeps = [RefCell::default(), RefCell::default()];
    let mut comparison = plan.compare(
        noting_sleeps(handing_over::<Green>(uthread), &sleeps[0]),
        noting_sleeps(handing_over::<Os>(std), &sleeps[1]),
        floor,
    );
    let [uthread, std] = sleeps.map(|sleeps| {
        // Those before were for calibration.
        let stretches = sleeps.into_inner();
        let measured = stretches[stretches.len() - plan.rounds..].to_vec();
        spread(&Samples::from(measured), figure)
    });
    comparison.remark(format!("sleeps in a round trip: uthread {uthread}, std {std}"));
    comparison
}

/// Notes for every stretch how often a thread of the process went to sleep per operation.
fn noting_sleeps<'a>(mut stretch: Stretch<'a>, notes: &'a RefCell<Vec<f64>>) -> Stretch<'a> {
    let sleeps = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("of the process itself");
        usage.voluntary_context_switches() as f64
    };
    Box::new(move |operations| {
        let before = sleeps();
        let timed = stretch(operations);
        notes.borrow_mut().push((sleeps() - before) / timed.operations as f64);
        timed
    })
}

fn handing_over<'a, T: Threads>(launch: impl Fn(Player, Player) + 'a) -> Stretch<'a> {
    Box::new(move |round_trips| park_ping_pong::<T>(round_trips, &launch, || ()))
}

/// The share of turns that were on another core than the one before.
fn changed_core<T: Threads>(launch: impl Fn(Player, Player)) -> f64 {
    let observer = Observer::new();
    let seen = observer.clone();
    let see_core = move || seen.saw(nix::sched::sched_getcpu().expect("since Linux 2.6.19"));
    park_ping_pong::<T>(OBSERVED, launch, see_core);
    observer.share()
}

/// Both players on the threads of one host.
fn together<T: Threads>(host: &T) -> impl Fn(Player, Player) {
    |opener, answerer| {
        host.run(|| {
            let answerer = T::spawn(answerer).expect("spawn");
            opener();
            T::join(answerer);
        })
    }
}

/// The opener on the caller's core, the answerer on the core `there`.
fn apart<T: Threads>(host_here: &T, host_there: &T, there: usize) -> impl Fn(Player, Player) {
    move |opener, answerer| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _pin = Pin::to(&[there]).expect("an allowed core");
                host_there.run(answerer);
            });
            host_here.run(opener);
        })
    }
}

fn spawns(plan: &Plan, batch: usize) -> io::Result<Comparison> {
    let _pin = Pin::to_first()?;
    let green = Green::new(1)?;
    let floor =
        floors::coroutine_life::<0>(batch).map(|stretch| vec![Part { times: 1.0, stretch }]);
    Ok(plan.compare(spawning_on(&green, batch), spawning_on(&Os, batch), floor))
}

fn spawning_on<T: Threads>(host: &T, batch: usize) -> Stretch<'_> {
    Box::new(move |spawns| host.run(|| spawning::<T>(batch, spawns)))
}
