//! Threads that wait, and what they cost meanwhile: the part of a memory row that runs in a process
//! of its own.
//!
//! Everything but the threads is resident before the first reading, and the second one is taken while
//! all of them are parked. What is read: resident bytes, by a walk of the page tables (the counter in
//! `status` lags behind by a batch of pages per core); the process's page tables; and what the kernel
//! allocated for itself, slabs that it cannot reclaim and its own stacks. The last is known for the
//! whole system only, so other processes blur it.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::floors::{self, Spinner};
use crate::machine::kib;
use crate::report::grouped;
use crate::threads::Threads;

/// What was measured; bytes are per thread.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parked {
    pub(crate) threads: usize,
    /// Why there are fewer threads than asked for.
    pub(crate) limit: Option<String>,
    pub(crate) resident: f64,
    pub(crate) page_tables: f64,
    pub(crate) kernel: f64,
    /// Lines of the whole process's map.
    pub(crate) map_lines: usize,
}

/// A reading of memory, in bytes.
struct Memory {
    resident: f64,
    page_tables: f64,
    kernel: f64,
}

impl Memory {
    fn now() -> io::Result<Memory> {
        Ok(Memory {
            resident: 1024.0 * kib("/proc/self/smaps_rollup", "Rss")?,
            page_tables: 1024.0 * kib("/proc/self/status", "VmPTE")?,
            kernel: 1024.0
                * (kib("/proc/meminfo", "SUnreclaim")? + kib("/proc/meminfo", "KernelStack")?),
        })
    }

    /// A reading once the kernel is at rest. It frees what belonged to a process that has ended some
    /// tenths of a second later, which would otherwise count as a gain of the next one's threads.
    fn at_rest() -> io::Result<Memory> {
        const PAUSE: Duration = Duration::from_millis(100);
        const PAUSES: usize = 30;
        const AT_REST: f64 = 64.0 * 1024.0;
        let mut memory = Memory::now()?;
        for _ in 0..PAUSES {
            thread::sleep(PAUSE);
            let before = memory.kernel;
            memory = Memory::now()?;
            if (memory.kernel - before).abs() <= AT_REST {
                break;
            }
        }
        Ok(memory)
    }

    /// What `threads` threads have added.
    fn added_by(&self, threads: usize, limit: Option<String>) -> io::Result<Parked> {
        let now = Memory::now()?;
        let each = |bytes: f64| bytes / threads as f64;
        Ok(Parked {
            threads,
            limit,
            resident: each(now.resident - self.resident),
            page_tables: each(now.page_tables - self.page_tables),
            kernel: each(now.kernel - self.kernel),
            map_lines: map_lines()?,
        })
    }
}

fn map_lines() -> io::Result<usize> {
    Ok(BufReader::new(File::open("/proc/self/maps")?).lines().count())
}

/// Slots for things to come, all of whose memory is resident.
fn resident_slots<T>(count: usize) -> Vec<Option<T>> {
    let mut slots = Vec::with_capacity(count);
    slots.resize_with(count, || None);
    black_box(slots)
}

pub(crate) fn suspend_coroutines(count: usize) -> io::Result<Parked> {
    let mut spinners = resident_slots(count);
    let stacks = floors::slots(count)?;
    let before = Memory::at_rest()?;
    for (spinner, stack) in spinners.iter_mut().zip(stacks) {
        *spinner = Some(Spinner::started(stack));
    }
    before.added_by(count, None)
}

pub(crate) fn park_threads<T: Threads>(host: &T, count: usize) -> io::Result<Parked> {
    host.run(|| Yard::default().fill::<T>(count))
}

/// Where threads wait for the gate to open.
#[derive(Default)]
struct Yard {
    arrived: AtomicUsize,
    open: AtomicBool,
    left: AtomicUsize,
}

impl Yard {
    /// After so many threads it is time to see how many mappings one takes.
    const PROBE: usize = 64;
    /// Mappings to leave alone: buffers, arenas of malloc.
    const SPARE_MAPPINGS: usize = 256;
    /// From the last arrival, which comes just before parking, until all are parked for sure.
    const SETTLE: Duration = Duration::from_millis(100);

    /// Parks `count` threads, reads what they cost, and sees them all off.
    fn fill<T: Threads>(self, count: usize) -> io::Result<Parked> {
        // What only the first thread brings about is not the price of the next ones.
        T::join(T::spawn(|| ())?);
        let yard = Arc::new(self);
        let mut handles = resident_slots(count);
        let lines = map_lines()?;
        let before = Memory::at_rest()?;

        let mut room = Room { threads: count, limit: None };
        let mut present = 0;
        while present < room.threads {
            if present == Yard::PROBE {
                yard.await_arrivals::<T>(present);
                room.narrow_to_mappings(lines, map_lines()?, present)?;
            }
            match T::spawn(yard.visit::<T>()) {
                Ok(handle) => handles[present] = Some(handle),
                Err(error) => {
                    room.narrow(present, error.to_string());
                    break;
                }
            }
            present += 1;
        }
        yard.await_arrivals::<T>(present);
        T::sleep(Yard::SETTLE);
        let parked = before.added_by(present, room.limit)?;

        yard.open.store(true, Ordering::Release);
        let handles: Vec<_> = handles.into_iter().flatten().collect();
        handles.iter().for_each(|handle| T::unpark(T::thread(handle)));
        handles.into_iter().for_each(T::join);
        assert_eq!(yard.left.load(Ordering::Relaxed), present, "every thread left");
        Ok(parked)
    }

    /// The body of a thread.
    fn visit<T: Threads>(self: &Arc<Yard>) -> impl FnOnce() + Send + use<T> {
        let yard = self.clone();
        move || {
            yard.arrived.fetch_add(1, Ordering::Release);
            while !yard.open.load(Ordering::Acquire) {
                T::park();
            }
            yard.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn await_arrivals<T: Threads>(&self, count: usize) {
        while self.arrived.load(Ordering::Acquire) < count {
            T::sleep(Duration::from_millis(1));
        }
    }
}

/// How many threads there is room for, and why not more.
struct Room {
    threads: usize,
    limit: Option<String>,
}

impl Room {
    fn narrow(&mut self, threads: usize, reason: String) {
        if threads < self.threads {
            let (wanted, got) = (grouped(self.threads as f64), grouped(threads as f64));
            self.limit = Some(format!("{got} threads instead of {wanted}: {reason}"));
            self.threads = threads;
        }
    }

    /// Stops short of the kernel's limit of mappings: where the signal stack of a new thread cannot be
    /// mapped, `std` aborts the process. `sample` threads have raised the number of mappings from
    /// `before` to `after`.
    fn narrow_to_mappings(&mut self, before: usize, after: usize, sample: usize) -> io::Result<()> {
        let each = after.saturating_sub(before) as f64 / sample as f64;
        let path = "/proc/sys/vm/max_map_count";
        let most: usize = fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)?;
        let room = most.saturating_sub(before + Yard::SPARE_MAPPINGS) as f64 / each;
        let reason = format!("vm.max_map_count is {most}, and each takes {each:.1} mappings");
        // Without any mappings of its own a thread divides by zero, which is room enough.
        self.narrow(room as usize, reason);
        Ok(())
    }
}
