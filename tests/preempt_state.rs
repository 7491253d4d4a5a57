//! What an interrupted thread has in its registers, on its stack and in its thread-locals is there when it goes
//! on, on whatever worker.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use uthread::Stats;

use bodies::{memory, processor};
use preempt::{Random, checksum, for_some_slices, hectic, migrations, on_each, os_thread, until};

/// Plays `body`, with ever new seeds, on more threads than there are workers, until they were interrupted often
/// and, if there are several workers, some have gone on in the middle of it on another one.
fn interrupted_and_moved(body: impl Fn(u64) + Sync) {
    let seeds = AtomicU64::new(1);
    for workers in [1, 2, 4] {
        let moved = AtomicU64::new(0);
        let shown = |now: &Stats| {
            now.forced_switches >= 60 && (workers == 1 || moved.load(Ordering::Relaxed) >= 4)
        };
        until(&hectic(workers).build().unwrap(), shown, || {
            on_each(4 * workers, |i| {
                // Some threads end sooner than others, whose workers then take over what waits elsewhere.
                for _ in 0..2 + i % 4 * 8 {
                    let before = os_thread();
                    for_some_slices(|| body(seeds.fetch_add(1, Ordering::Relaxed)));
                    moved.fetch_add(u64::from(os_thread() != before), Ordering::Relaxed);
                }
            });
        });
    }
}

#[test]
fn all_registers_at_once() {
    interrupted_and_moved(processor::hold_all);
}

#[test]
fn registers_of_threads_that_use_few_vectors() {
    interrupted_and_moved(processor::hold_few);
}

#[test]
fn long_vectors_beside_short_ones() {
    interrupted_and_moved(|seed| {
        if seed % 2 == 0 { processor::hold_all(seed) } else { processor::hold_few(seed) }
    });
}

#[test]
fn vectors_of_compiled_code() {
    if !std::is_x86_feature_detected!("avx2") {
        return eprintln!("skipped: no AVX2");
    }
    interrupted_and_moved(processor::add_vectors);
}

#[test]
fn x87_values_that_are_computed_with() {
    interrupted_and_moved(processor::add_in_x87);
}

#[test]
fn rounding_modes_of_code_that_computes() {
    interrupted_and_moved(processor::round);
}

#[test]
fn red_zones_of_code_without_calls() {
    interrupted_and_moved(processor::sum_in_red_zone);
}

#[test]
fn errno_arrays_and_thread_locals() {
    interrupted_and_moved(|seed| (0..3).for_each(|_| memory::remember(seed)));
}

thread_local! {
    static NUMBERS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static SUM: Cell<u64> = const { Cell::new(0) };
}

#[test]
fn of_hundreds_of_threads_that_migrate() {
    const THREADS: usize = 400;

    /// All that a thread has, again and again: registers, an array on its stack, thread-locals.
    fn live(seed: u64) {
        let mut random = Random(seed);
        let stack: [u8; 3000] = std::array::from_fn(|_| random.next() as u8);
        let sum = checksum(&stack);
        SUM.set(sum);
        NUMBERS.with_borrow_mut(|numbers| numbers.extend((0..500).map(|i| i ^ seed)));
        let rounds = 1 + random.below(3);
        for _ in 0..rounds {
            processor::hold_all(random.next());
            assert_eq!(checksum(std::hint::black_box(&stack)), sum);
        }
        assert_eq!(SUM.get(), sum);
        NUMBERS.with_borrow(|numbers| {
            assert_eq!(numbers.len(), 500);
            assert!(numbers.iter().zip(0..).all(|(n, i)| *n == i ^ seed));
        });
    }

    for workers in [1, 4] {
        let runtime = hectic(workers).build().unwrap();
        let seeds = AtomicU64::new(1);
        let shown = |now: &Stats| {
            now.forced_switches >= THREADS as u64 && (workers == 1 || migrations(now) >= 50)
        };
        until(&runtime, shown, || {
            on_each(THREADS, |_| live(seeds.fetch_add(1, Ordering::Relaxed)));
        });
    }
}
