//! What it costs that groups exist which have nothing to do.
//!
//! The runtime takes shorter ways as long as there has never been a group in the process. So each measurement is
//! a process of its own: the benchmark calls itself.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use uthread::{Builder, Group, Runtime};

use crate::common::{Goal, median, pin_to, table};
use crate::rig::{cpu_time, group, runtime};

const MOST_GROUPS: usize = 63;

/// Which groups exist, and where the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    /// There has never been one.
    Never,
    /// All that can be, without a thread.
    Idle,
    /// The same, but one has all threads.
    Own,
}

impl Scene {
    fn name(self) -> &'static str {
        match self {
            Scene::Never => "there has never been a group",
            Scene::Idle => "63 idle groups, work in the default one",
            Scene::Own => "62 idle groups, work in the 63rd",
        }
    }
}

const COLUMNS: [&str; 5] = [
    "yield, 2 threads [ns]",
    "64 threads [ns]",
    "work of hogs per µs of CPU time",
    "the group got of the worker [%]",
    "the process got of the core [%]",
];

/// Nanoseconds of CPU time of a yield between so many threads of the group.
fn yields(runtime: &Runtime, group: &Group, threads: usize, total: usize) -> f64 {
    let body = move || {
        let before = cpu_time();
        uthread::scope(|s| {
            for _ in 0..threads {
                s.spawn(|| (0..total / threads).for_each(|_| uthread::yield_now()));
            }
        });
        (cpu_time() - before) * 1e9 / total as f64
    };
    let thread = Builder::new().group(group).spawn_in(runtime, body).expect("a thread");
    thread.join().expect("it does not panic")
}

/// What four hogs did in all until it was over.
fn hogs_work(over: &AtomicBool) -> u64 {
    let hog = || {
        let mut done = 0_u64;
        while !over.load(Relaxed) {
            done = std::hint::black_box(done + 1);
        }
        done
    };
    uthread::scope(|s| {
        let hogs = [(); 4].map(|_| s.spawn(hog));
        hogs.into_iter().map(|h| h.join().expect("it does not panic")).sum()
    })
}

/// The work of hogs per microsecond of CPU time; parts of the time that the group and the process got, in percent.
fn hogs(runtime: &Runtime, group: &Group, time: Duration) -> [f64; 3] {
    static OVER: AtomicBool = AtomicBool::new(false);
    let used = || runtime.group_stats(group).run_time.as_secs_f64();
    let (start, cpu) = (Instant::now(), cpu_time());
    let hogs = Builder::new().group(group).spawn_in(runtime, || hogs_work(&OVER));
    std::thread::sleep(Duration::from_millis(5));
    let (from, used_before) = (Instant::now(), used());
    std::thread::sleep(time);
    let (service, stretch) = (used() - used_before, from.elapsed().as_secs_f64());
    OVER.store(true, Relaxed);
    let work = hogs.expect("a thread").join().expect("it does not panic");
    let got = cpu_time() - cpu;
    let wall = start.elapsed().as_secs_f64();
    [work as f64 / got / 1e6, 100.0 * service / stretch, 100.0 * got / wall]
}

/// Measures in this process, and prints the figures.
pub(crate) fn measure_here(scene: Scene, quick: bool) -> io::Result<()> {
    pin_to(1)?;
    let mut groups = Vec::new();
    if scene != Scene::Never {
        for _ in 0..MOST_GROUPS {
            groups.push(group("idle", 100)?);
        }
    }
    // On this thread, the current group is the default one.
    let own = groups.last().filter(|_| scene == Scene::Own).cloned();
    let own = own.unwrap_or_else(Group::current);
    let runtime = runtime(1)?;
    let total = if quick { 100_000 } else { 640_000 };
    yields(&runtime, &own, 64, total / 10);
    let time = Duration::from_millis(if quick { 50 } else { 250 });
    let figures = [yields(&runtime, &own, 2, total), yields(&runtime, &own, 64, total)];
    for figure in figures.into_iter().chain(hogs(&runtime, &own, time)) {
        println!("{figure}");
    }
    Ok(())
}

fn in_child(scene: Scene, quick: bool) -> io::Result<Vec<f64>> {
    let name = scene.to_possible_value().expect("none is skipped");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--idle", name.get_name()]).args(quick.then_some("--quick"));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if figures.len() != COLUMNS.len() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(figures)
}

pub(crate) fn measure(quick: bool) -> io::Result<Vec<Goal>> {
    let scenes = Scene::value_variants();
    let mut values = vec![vec![Vec::new(); COLUMNS.len()]; scenes.len()];
    for _ in 0..if quick { 3 } else { 9 } {
        for (scene, values) in scenes.iter().zip(&mut values) {
            let figures = in_child(*scene, quick)?;
            values.iter_mut().zip(figures).for_each(|(values, figure)| values.push(figure));
        }
    }
    let medians: Vec<Vec<f64>> =
        values.into_iter().map(|values| values.into_iter().map(median).collect()).collect();
    let mut rows = table(&[&["groups"], &COLUMNS[..]].concat());
    for (scene, values) in scenes.iter().zip(&medians) {
        let mut row = vec![scene.name().to_owned()];
        row.extend(values.iter().map(|value| format!("{value:.1}")));
        rows.add_row(row);
    }
    println!("{rows}\n");
    // How much more a yield costs than in a process without groups, at the most; and how much of the work is missing.
    let more = |column: usize| {
        let costs = medians.iter().map(|values| values[column] / medians[0][column]);
        100.0 * (costs.fold(0.0, f64::max) - 1.0)
    };
    let yields = more(0).max(more(1));
    let works = medians.iter().map(|values| values[2] / medians[0][2]);
    let missing = 100.0 * (1.0 - works.fold(f64::MAX, f64::min));
    let alone = medians.iter().map(|values| values[3]).fold(f64::MAX, f64::min);
    Ok(vec![
        Goal {
            text: format!("idle groups make a yield dearer by at most 5 %: {yields:.1}"),
            met: yields <= 5.0,
        },
        Goal {
            text: format!("hogs do at most 1 % less beside idle groups: {missing:.2}"),
            met: missing <= 1.0,
        },
        Goal {
            text: format!("a group alone gets at least 99.5 % of its worker: {alone:.2}"),
            met: alone >= 99.5,
        },
    ])
}
