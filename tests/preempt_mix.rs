//! Everything at once: random mixes of all that interrupted threads may be doing, from a seed that is told.
//!
//! `UTHREAD_MIX_SEED` repeats one; `UTHREAD_SOAK_SECONDS` bounds the soak, which is ignored by default and takes
//! ten minutes (`cargo test --release --test preempt_mix -- --ignored`).
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bodies::memory::DESTROYED;
use bodies::output::{LINE, PANICKED, PANICS, PRINTED, check_printed};
use bodies::signals::BROKEN;
use preempt::{Random, hectic, migrations};
use subprocess::in_child;
use watchdog::watched;

const SEED: &str = "UTHREAD_MIX_SEED";

/// Threads of a mix, besides their children.
const THREADS: usize = 200;

/// How often each body was played.
type Played = [AtomicU64; bodies::ALL.len()];

/// Plays a few random bodies, one after the other, and has children that do the same.
fn live(seed: u64, first: Option<usize>, played: &Arc<Played>, depth: u32) {
    let mut random = Random(seed);
    let play = |index: usize, seed| {
        (bodies::ALL[index].play)(seed);
        played[index].fetch_add(1, Ordering::Relaxed);
    };
    if let Some(index) = first {
        play(index, random.next());
    }
    for _ in 0..random.below(6) {
        if depth < 3 && random.one_in(8) {
            let children: Vec<_> = (0..random.below(5))
                .map(|_| {
                    let (seed, played) = (random.next(), played.clone());
                    uthread::spawn(move || live(seed, None, &played, depth + 1))
                })
                .collect();
            children.into_iter().for_each(|t| t.join().unwrap());
        }
        let index = random.below(bodies::ALL.len() as u64) as usize;
        if !bodies::ALL[index].is_slow || random.one_in(10) {
            play(index, random.next());
        }
    }
}

/// A mix of all bodies on so many workers.
fn mix(seed: u64, workers: usize, played: &Arc<Played>) {
    let runtime = hectic(workers).build().unwrap();
    watched(&runtime, || {
        let mut random = Random(seed);
        let all: Vec<_> = (0..THREADS)
            .map(|i| {
                // Every body is in every mix.
                let first = Some(i % bodies::ALL.len());
                let (seed, played) = (random.next(), played.clone());
                runtime.spawn(move || live(seed, first, &played, 0))
            })
            .collect();
        // All of them, so that the first panic is not the only one to be seen.
        let failed = all.into_iter().map(|t| t.join()).filter(Result::is_err).count();
        assert_eq!(failed, 0, "threads have panicked, with {workers} workers");
    });
    let stats = runtime.stats();
    assert!(stats.forced_switches >= 100 && stats.helper_moves >= 10, "{stats}");
    assert!(workers == 1 || migrations(&stats) >= 10, "{stats}");
}

/// Mixes on more and more workers, in the process that plays them.
fn mixes(seed: u64) {
    let played: Arc<Played> = Arc::new([const { AtomicU64::new(0) }; bodies::ALL.len()]);
    for workers in [1, 2, 3, 4] {
        mix(seed, workers, &played);
    }
    for (body, played) in bodies::ALL.iter().zip(played.iter()) {
        let played = played.load(Ordering::Relaxed);
        assert!(played >= 4, "{}: {played}", body.name);
        if body.name == "memory::leave_behind" {
            assert_eq!(DESTROYED.load(Ordering::Relaxed), 2 * played);
        }
    }
    assert_eq!(BROKEN.load(Ordering::Relaxed), 0);
    let (printed, panicked) = (PRINTED.load(Ordering::Relaxed), PANICKED.load(Ordering::Relaxed));
    println!("\nend {printed} {panicked}");
}

/// Plays mixes in a process of their own, and checks what it has put out.
fn play(seed: u64) {
    println!("{SEED}={seed}");
    let environment = [(SEED, &*seed.to_string()), ("RUST_BACKTRACE", "1")];
    let output = in_child("random_mixes_end_well", &environment, || mixes(given().unwrap()));
    let all = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let end = all.lines().find_map(|line| line.strip_prefix("end "));
    let Some(end) = end.filter(|_| output.status.success()) else {
        let lines = all.lines().filter(|line| !line.contains(LINE));
        panic!("{SEED}={seed}: {}\n{}", output.status, lines.collect::<Vec<_>>().join("\n"));
    };
    let panicked = all.matches(PANICS).count();
    assert_eq!(end, format!("{} {panicked}", check_printed(&all)), "{SEED}={seed}");
}

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

fn given() -> Option<u64> {
    from_environment(SEED)
}

fn fresh() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn random_mixes_end_well() {
    play(given().unwrap_or_else(fresh));
}

#[test]
#[ignore = "a soak of ten minutes"]
fn random_mixes_end_well_for_a_long_time() {
    let time = Duration::from_secs(from_environment("UTHREAD_SOAK_SECONDS").unwrap_or(600));
    let (began, mut seeds) = (Instant::now(), Random(given().unwrap_or_else(fresh)));
    while began.elapsed() < time {
        play(seeds.next());
    }
}
