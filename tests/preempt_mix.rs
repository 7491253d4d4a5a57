//! Everything at once: random mixes of what interrupted threads may be doing, from a seed that is told.
//!
//! `UTHREAD_MIX_SEED` repeats one; `UTHREAD_SOAK_SECONDS` bounds the soak, which is ignored by default and takes
//! ten minutes (`cargo test --release --test preempt_mix -- --ignored`).

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use preempt::hectic;
use watchdog::watched;

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

thread_local!(static OWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });

/// What the threads of one mix share.
#[derive(Default)]
struct Shared {
    table: Mutex<BTreeMap<u64, u64>>,
    done: AtomicU64,
}

/// A few random things, one after the other; each checks itself.
fn live(seed: u64, shared: &Arc<Shared>, depth: u32) {
    let mut random = Random(seed);
    for _ in 0..1 + random.below(6) {
        match random.below(12) {
            0 => {
                let (n, start) = (random.below(100_000), random.next());
                let sum = (0..n).fold(start, |a, b| std::hint::black_box(a.wrapping_add(b)));
                assert_eq!(sum, start.wrapping_add(n * n.saturating_sub(1) / 2));
            }
            1 => {
                let mut kept = Vec::new();
                for i in 0..random.below(300) {
                    kept.push((i, vec![i as u8; random.below(2000) as usize]));
                }
                assert!(kept.iter().all(|(i, v)| v.iter().all(|b| *b == *i as u8)));
            }
            2 => {
                let key = random.below(32);
                *shared.table.lock().unwrap().entry(key).or_default() += 1;
            }
            3 => OWN.with(|own| {
                let mut own = own.borrow_mut();
                own.clear();
                own.extend((0..random.below(5000)).map(|i| i ^ seed));
                uthread::yield_now();
                assert!(own.iter().zip(0..).all(|(v, i)| *v == i ^ seed));
            }),
            4 => {
                let payload = std::panic::catch_unwind(|| {
                    std::panic::resume_unwind(Box::new(seed));
                });
                assert_eq!(*payload.unwrap_err().downcast::<u64>().unwrap(), seed);
            }
            5 => uthread::sleep(Duration::from_micros(random.below(300))),
            6 if depth < 3 => {
                let children: Vec<_> = (0..random.below(5))
                    .map(|_| {
                        let (seed, shared) = (random.next(), shared.clone());
                        uthread::spawn(move || live(seed, &shared, depth + 1))
                    })
                    .collect();
                children.into_iter().for_each(|t| t.join().unwrap());
            }
            7 => {
                let (mut reader, mut writer) = std::io::pipe().unwrap();
                let value = random.next().to_ne_bytes();
                let late = uthread::spawn(move || writer.write_all(&value).unwrap());
                let mut got = [0; 8];
                if random.below(2) == 0 {
                    reader.read_exact(&mut got).unwrap();
                } else {
                    uthread::blocking(|| reader.read_exact(&mut got).unwrap());
                }
                assert_eq!(got, value);
                late.join().unwrap();
            }
            8 => {
                let own = uthread::current();
                let waker = uthread::spawn(move || own.unpark());
                uthread::park_timeout(Duration::from_millis(1));
                waker.join().unwrap();
            }
            9 => uthread::without_preemption(|| {
                let sum = (0..2000).fold(seed, |a, b: u64| std::hint::black_box(a.wrapping_add(b)));
                assert_eq!(sum, seed.wrapping_add(1_999_000));
                uthread::yield_now();
            }),
            10 => {
                let x = std::hint::black_box(seed as f64);
                let roots: Vec<f64> = (0..200).map(|i| (x + f64::from(i)).sqrt()).collect();
                assert!(roots.is_sorted());
            }
            11 if random.below(20) == 0 => {
                assert_eq!(std::thread::spawn(move || seed ^ 1).join().unwrap(), seed ^ 1);
            }
            _ => assert!(std::io::Error::from_raw_os_error(libc::EACCES).to_string().len() > 5),
        }
    }
    shared.done.fetch_add(1, Ordering::Relaxed);
}

/// A mix of threads on so many workers.
fn mix(seed: u64, workers: usize, threads: u64) {
    let runtime = hectic(workers).build().unwrap();
    let shared = Arc::new(Shared::default());
    watched(&runtime, || {
        let mut random = Random(seed);
        let all: Vec<_> = (0..threads)
            .map(|_| {
                let (seed, shared) = (random.next(), shared.clone());
                runtime.spawn(move || live(seed, &shared, 0))
            })
            .collect();
        for thread in all {
            assert!(thread.join().is_ok(), "UTHREAD_MIX_SEED={seed} with {workers} workers fails");
        }
    });
    assert!(shared.done.load(Ordering::Relaxed) >= threads);
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

#[test]
fn random_mixes_end_well() {
    let given = std::env::var("UTHREAD_MIX_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(fresh_seed);
    println!("UTHREAD_MIX_SEED={seed}");
    for workers in [1, 2, 4] {
        mix(seed, workers, 150);
    }
}

#[test]
#[ignore = "a soak of ten minutes"]
fn random_mixes_end_well_for_a_long_time() {
    let given = std::env::var("UTHREAD_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let end = Instant::now() + Duration::from_secs(given.unwrap_or(600));
    let mut seeds = Random(fresh_seed());
    while Instant::now() < end {
        let seed = seeds.next();
        println!("UTHREAD_MIX_SEED={seed}");
        for workers in [1, 2, 3, 4] {
            mix(seed, workers, 400);
        }
    }
}
