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
