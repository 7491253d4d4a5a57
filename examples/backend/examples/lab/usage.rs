//! What a process uses, by its own account and the kernel's.
//!
//! The service tells it when asked, in its own process: the kernel's counters of a process include the threads that
//! have ended already, and those of a thread per request end all the time; in `/proc/<pid>/task` they are no longer
//! seen. The clock is read beside the counters, since a service that is busy answers late.

use std::io;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::machine::{field, kib};

/// What a process has used up to now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// By the monotonic clock.
    pub(crate) at: Duration,
    pub(crate) cpu: Duration,
    /// Of all its threads, in the kernel.
    pub(crate) kernel_switches: u64,
    pub(crate) threads: u64,
    /// Bytes.
    pub(crate) resident: u64,
    /// Bytes.
    pub(crate) page_tables: u64,
    pub(crate) counted: Counted,
}

/// What the service counts itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Switches to green threads.
    pub(crate) green_switches: u64,
    /// Requests under way: their bodies have come, their answers are not made.
    pub(crate) under_way: u64,
    /// Images made smaller.
    pub(crate) images: u64,
}

impl Usage {
    /// Of the calling process.
    pub(crate) fn now(counted: Counted) -> io::Result<Usage> {
        let rusage = getrusage(UsageWho::RUSAGE_SELF)?;
        let switches = rusage.voluntary_context_switches() + rusage.involuntary_context_switches();
        let threads = field("/proc/self/status", "Threads").and_then(|count| count.parse().ok());
        Ok(Usage {
            at: clock(ClockId::CLOCK_MONOTONIC)?,
            cpu: clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
            kernel_switches: switches.cast_unsigned(),
            threads: threads.unwrap_or(0),
            // By a walk of the page tables: the counter in `status` lags behind by a batch of pages per core.
            resident: 1024 * kib("/proc/self/smaps_rollup", "Rss")?,
            page_tables: 1024 * kib("/proc/self/status", "VmPTE")?,
            counted,
        })
    }

    /// Goes on by what was used between two readings of another process, of the same way; of what comes and goes it has the
    /// most.
    pub(crate) fn advance(&mut self, before: &Usage, after: &Usage) {
        self.at += after.at.saturating_sub(before.at);
        self.cpu += after.cpu.saturating_sub(before.cpu);
        self.kernel_switches += after.kernel_switches.saturating_sub(before.kernel_switches);
        let (counted, from, to) = (&mut self.counted, &before.counted, &after.counted);
        counted.green_switches += to.green_switches.saturating_sub(from.green_switches);
        counted.images += to.images.saturating_sub(from.images);
        counted.under_way = counted.under_way.max(to.under_way);
        self.threads = self.threads.max(after.threads);
        self.resident = self.resident.max(after.resident);
        self.page_tables = self.page_tables.max(after.page_tables);
    }

    /// The part of so many cores that was used since then, in percent.
    pub(crate) fn cpu_percent(&self, since: &Usage, cores: usize) -> f64 {
        let cpu = self.cpu.saturating_sub(since.cpu).as_secs_f64();
        let time = self.at.saturating_sub(since.at).as_secs_f64();
        100.0 * cpu / (time * cores as f64)
    }
}

fn clock(clock: ClockId) -> io::Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}

/// What the kernel has allocated for itself, in bytes. It is known for the whole system only, so other processes blur it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) stacks: u64,
    /// Of threads, sockets, files: what cannot be reclaimed.
    pub(crate) slabs: u64,
}

impl Kernel {
    pub(crate) fn now() -> io::Result<Kernel> {
        Ok(Kernel {
            stacks: 1024 * kib("/proc/meminfo", "KernelStack")?,
            slabs: 1024 * kib("/proc/meminfo", "SUnreclaim")?,
        })
    }

    /// A reading once the kernel is at rest: it frees what belonged to a process that has ended some tenths of a second
    /// later.
    pub(crate) fn at_rest() -> io::Result<Kernel> {
        const PAUSE: Duration = Duration::from_millis(100);
        const PAUSES: usize = 10;
        const AT_REST: u64 = 256 << 10;
        let mut kernel = Kernel::now()?;
        for _ in 0..PAUSES {
            std::thread::sleep(PAUSE);
            let before = kernel.slabs + kernel.stacks;
            kernel = Kernel::now()?;
            if (kernel.slabs + kernel.stacks).abs_diff(before) <= AT_REST {
                break;
            }
        }
        Ok(kernel)
    }

    /// What was added since then.
    pub(crate) fn since(self, before: Kernel) -> Kernel {
        Kernel {
            stacks: self.stacks.saturating_sub(before.stacks),
            slabs: self.slabs.saturating_sub(before.slabs),
        }
    }
}
