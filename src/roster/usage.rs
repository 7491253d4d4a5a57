//! How much of their stacks threads use.
//!
//! The kernel knows which pages have memory (`/proc/self/pagemap`, Documentation/admin-guide/mm/pagemap.rst).
//! A stack is touched from its top downwards: the lowest page with memory is the high-water mark.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::context::stack::{Stack, page_size};

/// What a thread's stack takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackUsage {
    /// Address space, the guard page included.
    pub reserved: usize,
    /// Memory, by whole pages: frames, thread-local storage and the thread's control block.
    pub resident: usize,
    /// From the top to the deepest page that was touched. Stacks are used again, warm: what an earlier thread
    /// has touched counts until the pool has given it back.
    pub high_water: usize,
}

/// What the stacks of several threads take, and what those of as many OS threads would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackTotals {
    /// Number of threads.
    pub threads: usize,
    /// Their stacks, in sum.
    pub green: StackUsage,
    /// Those of as many threads of `std` that do the same: of the size that `std` reserves by default (or
    /// `RUST_MIN_STACK`), with the same frames, and each with a stack in the kernel, of which the kernel tells how large
    /// it is on average (`KernelStack` in proc_meminfo(5)). The kernel's other structures for a thread, and page
    /// tables, are not counted.
    pub os: StackUsage,
}

impl StackTotals {
    pub(super) fn of(stacks: &[StackUsage]) -> StackTotals {
        let mut green = StackUsage::default();
        for stack in stacks {
            green.reserved += stack.reserved;
            green.resident += stack.resident;
            green.high_water += stack.high_water;
        }
        let threads = stacks.len();
        let kernel = threads * kernel_stack();
        let os = StackUsage {
            reserved: threads.saturating_mul(std_stack()).saturating_add(kernel),
            resident: green.resident + kernel,
            high_water: green.high_water + kernel,
        };
        StackTotals { threads, green, os }
    }
}

/// Bytes that `std` reserves for a thread's stack, with its guard page.
fn std_stack() -> usize {
    /// `DEFAULT_MIN_STACK_SIZE` of `std`.
    const DEFAULT: usize = 2 << 20;
    let set = std::env::var("RUST_MIN_STACK").ok().and_then(|size| size.parse().ok());
    set.unwrap_or(DEFAULT).saturating_add(page_size())
}

/// Bytes of the kernel's stack of a thread, on average over all threads of the system. 0 if it is not told.
fn kernel_stack() -> usize {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (memory, load) = (read("/proc/meminfo"), read("/proc/loadavg"));
    let line = memory.lines().find_map(|line| line.strip_prefix("KernelStack:"));
    let all = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
    // The fourth word is "running/existing".
    let threads = load.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    let threads = threads.and_then(|(_, existing)| existing.parse::<usize>().ok());
    all.zip(threads).map_or(0, |(all, threads)| all * 1024 / threads.max(1))
}

/// The kernel's table of this process's pages.
pub(super) struct PageMap(File);

impl PageMap {
    /// # Errors
    ///
    /// There is no `/proc`.
    pub(super) fn open() -> io::Result<PageMap> {
        let path = "/proc/self/pagemap";
        let open = File::open(path);
        let explain =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot look at stacks: {path}: {e}"));
        open.map(PageMap).map_err(explain)
    }

    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn usage(&self, stack: Stack) -> io::Result<StackUsage> {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        /// Pages that are asked for at a time, from the top on.
        const CHUNK: usize = 512;
        let (page, top) = (page_size(), stack.top().as_ptr().addr());
        let (mut resident, mut deepest) = (0, top);
        let mut end = top;
        let mut words = vec![0; CHUNK * 8];
        while end > stack.limit() {
            let start = end.saturating_sub(CHUNK * page).max(stack.limit());
            let words = &mut words[..(end - start) / page * 8];
            self.0.read_exact_at(words, (start / page * 8) as u64)?;
            let (words, _) = words.as_chunks();
            let touched = |word: &[u8; 8]| u64::from_ne_bytes(*word) & (PRESENT | SWAPPED) != 0;
            if let Some(first) = words.iter().position(touched) {
                deepest = start + first * page;
            }
            let present = |word: &&[u8; 8]| u64::from_ne_bytes(**word) & PRESENT != 0;
            resident += words.iter().filter(present).count() * page;
            end = start;
        }
        Ok(StackUsage { reserved: stack.size(), resident, high_water: top - deepest })
    }
}
