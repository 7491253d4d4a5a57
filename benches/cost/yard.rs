//! Threads that wait, and what they cost meanwhile: the part of a memory row that runs in a process
//! of its own.
//!
//! Everything but the threads is resident before the first reading, and the second one is taken while
//! all of them are parked. What is read: resident bytes, by a walk of the page tables (the counter in
//! `status` lags behind by a batch of pages per core); the process's page tables; and what the kernel
//! allocated for itself, slabs that it cannot reclaim and its own stacks. The last is known for the
//! whole system only, so other processes blur it.

use std::io;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{Case, Kind};
use crate::crowd::{Crowd, resident};
use crate::floors::{self, Spinner};
use crate::limits::{Room, map_lines};
use crate::machine::kib;
use crate::threads::{Green, Os, Threads};

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

/// Measures it in this process, which should have done nothing yet.
pub(crate) fn measure(case: &Case) -> io::Result<Parked> {
    match case.kind {
        Kind::Coroutine => suspend_coroutines(case.threads),
        Kind::Std => park_threads(&Os, case.threads),
        Kind::Uthread { stack } => park_threads(&Green::with_stacks(stack)?, case.threads),
    }
}

fn suspend_coroutines(count: usize) -> io::Result<Parked> {
    let mut spinners = resident(count);
    let stacks = floors::slots(count)?;
    let before = Memory::at_rest()?;
    spinners.extend(stacks.map(Spinner::started));
    before.added_by(count, None)
}

/// From the last arrival, which comes just before parking, until all are parked for sure.
const SETTLE: Duration = Duration::from_millis(100);

fn park_threads<T: Threads>(host: &T, count: usize) -> io::Result<Parked> {
    host.run(|| {
        let mut crowd = Crowd::<T>::new(count + 1);
        // What only the first thread brings about is not the price of the next ones. It stays, so that
        // none of them gets what it leaves behind.
        crowd.gather(1).1?;
        let before = Memory::at_rest()?;
        let mut room = Room::of(count);
        let parked = crowd.gather_within(&mut room)?.operations;
        T::sleep(SETTLE);
        let parked = before.added_by(parked, room.limit)?;
        crowd.disperse();
        Ok(parked)
    })
}
