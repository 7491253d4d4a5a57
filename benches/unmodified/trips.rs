//! Round trips: two threads that wait for each other by what `std` has.
//!
//! Both threads block once in each: there are two switches in it and two wake-ups.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use uthread::Runtime;

use crate::common::{Goal, median, pin_to, table};

/// Runs a function as a thread to its end.
pub(crate) type Run<'a> = &'a dyn Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>;

/// Makes so many round trips, one thread here, the other by the function.
pub(crate) type Trips = fn(usize, Run<'_>);

/// What is measured.
pub(crate) const CASES: [(&str, Trips); 6] = [
    ("Mutex and Condvar", condition),
    ("mpsc::channel", by_channels),
    ("mpsc::sync_channel(1)", by_bounded_channels::<1>),
    ("mpsc::sync_channel(0)", by_bounded_channels::<0>),
    ("thread::park", park),
    ("Mutex, held while others run", mutex),
];

fn condition(trips: usize, run: Run<'_>) {
    fn wait_for(turn: &(Mutex<bool>, Condvar), whose: bool) {
        let lock = turn.0.lock().expect("nobody panics");
        let mut lock = turn.1.wait_while(lock, |turn| *turn != whose).expect("nobody panics");
        *lock = !whose;
        // As its documentation says, the lock need not be held.
        drop(lock);
        turn.1.notify_one();
    }
    let turn = Arc::new((Mutex::new(false), Condvar::new()));
    let other = turn.clone();
    let join = run(Box::new(move || (0..trips).for_each(|_| wait_for(&other, true))));
    (0..trips).for_each(|_| wait_for(&turn, false));
    join();
}

fn echo(
    trips: usize,
    run: Run<'_>,
    there: (Box<dyn Fn() + Send>, Receiver<()>),
    back: (Box<dyn Fn() + Send>, Receiver<()>),
) {
    let (receive, answer) = (there.1, back.0);
    let join = run(Box::new(move || {
        for () in receive {
            answer();
        }
    }));
    for _ in 0..trips {
        (there.0)();
        back.1.recv().expect("the other answers");
    }
    drop(there.0);
    join();
}

fn by_channels(trips: usize, run: Run<'_>) {
    let one_way = || {
        let (sender, receiver) = channel();
        let send = move || sender.send(()).expect("the other is there");
        (Box::new(send) as Box<dyn Fn() + Send>, receiver)
    };
    echo(trips, run, one_way(), one_way());
}

fn by_bounded_channels<const ROOM: usize>(trips: usize, run: Run<'_>) {
    let one_way = || {
        let (sender, receiver): (SyncSender<()>, _) = sync_channel(ROOM);
        let send = move || sender.send(()).expect("the other is there");
        (Box::new(send) as Box<dyn Fn() + Send>, receiver)
    };
    echo(trips, run, one_way(), one_way());
}

fn park(trips: usize, run: Run<'_>) {
    let here = thread::current();
    let (sender, receiver) = channel();
    let join = run(Box::new(move || {
        sender.send(thread::current()).expect("the other is there");
        for _ in 0..trips {
            thread::park();
            here.unpark();
        }
    }));
    let there = receiver.recv().expect("the other is there");
    for _ in 0..trips {
        there.unpark();
        thread::park();
    }
    join();
}

/// Each holds the lock when it lets the other run. `std` spins before it waits, which is most of this.
fn mutex(trips: usize, run: Run<'_>) {
    let lock = Arc::new(Mutex::new(()));
    let other = lock.clone();
    let body = move |lock: &Mutex<()>| {
        for _ in 0..trips {
            let held = lock.lock().expect("nobody panics");
            thread::yield_now();
            drop(held);
        }
    };
    let join = run(Box::new(move || body(&other)));
    body(&lock);
    join();
}

/// Nanoseconds of one.
fn time(trips: usize, f: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    f();
    begin.elapsed().as_nanos() as f64 / trips as f64
}

/// For cases on green threads.
pub(crate) fn run_green(f: Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()> {
    let thread = uthread::spawn(f);
    Box::new(move || thread.join().expect("it does not panic"))
}

fn on_green(runtime: &Runtime, trips: usize, case: Trips) -> f64 {
    let body = move || time(trips, || case(trips, &run_green));
    runtime.spawn(body).join().expect("it does not panic")
}

fn on_os(trips: usize, case: Trips) -> f64 {
    time(trips, || {
        case(trips, &|f| {
            let thread = thread::spawn(f);
            Box::new(move || thread.join().expect("it does not panic"))
        });
    })
}

/// A switch between two green threads that yield.
fn yields(runtime: &Runtime, count: usize) -> f64 {
    let body = move || {
        let yields = move || (0..count).for_each(|_| uthread::yield_now());
        let other = uthread::spawn(yields);
        time(2 * count, || {
            yields();
            other.join().expect("it does not panic");
        })
    };
    runtime.spawn(body).join().expect("it does not panic")
}

/// What `std`'s mutex spins for before it waits for one that is held.
fn spin() -> f64 {
    const SPINS: usize = 100;
    let begin = Instant::now();
    for _ in 0..1000 {
        (0..SPINS).for_each(|_| std::hint::spin_loop());
    }
    begin.elapsed().as_nanos() as f64 / 1000.0
}

pub(crate) fn measure(rounds: usize, cores: usize) -> io::Result<Vec<Goal>> {
    const GREEN: usize = 20_000;
    const OS: usize = 1_000;
    let runtime = Runtime::builder().workers(1).build()?;
    let mut samples = vec![[const { Vec::new() }; 3]; CASES.len()];
    let (mut switches, mut spins) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        pin_to(1)?;
        switches.push(yields(&runtime, GREEN));
        spins.push(spin());
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples[0].push(on_green(&runtime, GREEN, case.1));
            samples[1].push(on_os(OS, case.1));
        }
        pin_to(cores)?;
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples[2].push(on_os(OS, case.1));
        }
    }
    let switch = median(switches);
    let columns = [
        "by",
        "green threads [ns]",
        "in yields",
        "OS threads, one core [ns]",
        "all cores [ns]",
        "times cheaper",
    ];
    let mut rows = table(&columns);
    let mut goals = Vec::new();
    for (case, samples) in CASES.iter().zip(samples) {
        let [green, one_core, all_cores] = samples.map(median);
        let os = one_core.min(all_cores);
        rows.add_row([
            case.0.to_owned(),
            format!("{green:.0}"),
            format!("{:.1}", green / switch),
            format!("{one_core:.0}"),
            format!("{all_cores:.0}"),
            format!("{:.1}", os / green),
        ]);
        let in_yields = green / switch;
        goals.push(Goal {
            text: format!("{}: a round trip is {in_yields:.1} yields, at most 5", case.0),
            met: in_yields <= 5.0,
        });
        let cheaper = os / green;
        goals.push(Goal {
            text: format!("{}: {cheaper:.1} times cheaper than on OS threads, at least 10", case.0),
            met: cheaper >= 10.0,
        });
    }
    println!(
        "Round trips of two threads on one worker. A yield between two takes {switch:.1} ns; `std`'s mutex spins for \
         {:.0} ns before it waits.\n",
        median(spins)
    );
    println!("{rows}");
    Ok(goals)
}
