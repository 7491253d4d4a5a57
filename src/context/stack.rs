//! Stacks: slabs of equal, guarded stacks.
//!
//! **Problem.** A million stacks, each with a guard page, where the kernel allows 65,530 mappings by
//! default (`vm.max_map_count`), and where mapping and unmapping cost microseconds.
//!
//! **Alternatives.** A mapping per stack is two lines in the process's map, four with the signal
//! stack that `std` adds, and two system calls per thread. Segmented or copied stacks (early Go and
//! Rust, today's Go) need a compiler that knows where pointers into the stack are.
//!
//! **Choice.** Stacks are cut from slabs, large anonymous mappings that reserve address space
//! without memory, and are never unmapped while the process runs: they are pooled. The guard page is a
//! `MADV_GUARD_INSTALL` marker (Linux 6.13), which does not split the mapping; on older kernels
//! `mprotect` does the same at two mappings per stack. Neighbouring slabs merge in the kernel's map.
//! Transparent huge pages are switched off for slabs: the first touch of a stack would take 2 MiB.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::mman::{MmapAdvise, ProtFlags, madvise, mprotect};

/// The smallest size in bytes: room for libc's frames, a panic message and a signal frame with
/// AVX-512 state (2.7 KiB) below the thread block.
pub(crate) const MIN_SIZE: usize = 32 << 10;
/// The largest size in bytes; beyond it a slab of a few stacks nears the address space's end.
pub(crate) const MAX_SIZE: usize = 64 << 30;
/// The size in bytes unless told otherwise. Only touched pages cost memory, and blocking crates
/// (TLS, database clients, format machinery) are written for the 2 MiB of `std`.
pub(crate) const DEFAULT_SIZE: usize = 512 << 10;

/// `MADV_GUARD_INSTALL` of `<linux/mman.h>`, since Linux 6.13.
const MADV_GUARD_INSTALL: i32 = 102;

/// What a stack of `requested` bytes gets: a power of two between [`MIN_SIZE`] and [`MAX_SIZE`].
///
/// Powers of two keep the number of pools small and stacks aligned with page tables; what is
/// rounded up is address space.
pub(crate) fn rounded_size(requested: usize) -> usize {
    requested.clamp(MIN_SIZE, MAX_SIZE).next_power_of_two()
}

/// Bytes in a page of memory.
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf has no preconditions.
    *SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

/// One stack of a slab: `size` bytes up to `top`, the lowest page of which is the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    top: NonNull<u8>,
    size: usize,
}

// SAFETY: it is a range of addresses; who may touch the memory is its holder's affair.
unsafe impl Send for Stack {}

impl Stack {
    /// One past the highest byte; a multiple of the size of a page.
    pub(crate) fn top(&self) -> NonNull<u8> {
        self.top
    }

    /// Bytes of address space, guard included.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The lowest usable address.
    pub(crate) fn limit(&self) -> usize {
        self.top.as_ptr() as usize - self.size + page_size()
    }

    /// Whether `address` lies above the guard page.
    pub(crate) fn contains(&self, address: usize) -> bool {
        (self.limit()..self.top.as_ptr() as usize).contains(&address)
    }

    /// Whether `address` lies in the guard page.
    pub(crate) fn guards(&self, address: usize) -> bool {
        (self.limit() - page_size()..self.limit()).contains(&address)
    }

    /// Returns the memory below the `keep` highest bytes to the kernel.
    ///
    /// # Safety
    ///
    /// `keep` is a multiple of the page size, and nobody uses what is below.
    pub(crate) unsafe fn discard_below(&self, keep: usize) {
        let length = self.size.saturating_sub(page_size() + keep);
        if length == 0 {
            return;
        }
        let start = NonNull::new(self.limit() as *mut _).expect("stacks do not lie at address 0");
        // SAFETY: the range is this stack's, and the caller says it is unused. The guard is outside.
        let result = unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) };
        // It fails only for ranges that are locked (mlockall) or not mapped.
        debug_assert!(matches!(result, Ok(()) | Err(nix::Error::EINVAL)), "{result:?}");
    }
}

/// Who occupies a stack, for those who want to know of all threads; each stack has one for good.
///
/// The occupant's number is written last when it moves in, and taken away first when it leaves. Numbers are never
/// used twice: who finds the same one before and after it has looked at the occupant, has looked at that one.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    number: AtomicU64,
    at: AtomicUsize,
}

impl Resident {
    /// The occupant with that number moves in; what it is known by lies at that address.
    #[inline]
    pub(crate) fn moves_in(&self, number: u64, at: usize) {
        self.at.store(at, Ordering::Relaxed);
        self.number.store(number, Ordering::Release);
    }

    /// It leaves: from now on what lies at the address may change.
    #[inline]
    pub(crate) fn moves_out(&self) {
        self.number.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// The present occupant's number and address.
    pub(crate) fn get(&self) -> Option<(u64, usize)> {
        let number = self.number.load(Ordering::Acquire);
        let at = self.at.load(Ordering::Relaxed);
        (number != 0).then_some((number, at))
    }

    /// Whether the occupant is still that one. What was read before was its own, then.
    pub(crate) fn is_still(&self, number: u64) -> bool {
        fence(Ordering::Acquire);
        self.number.load(Ordering::Relaxed) == number
    }
}

/// One mapping, cut into stacks of one size.
pub(crate) struct Slab {
    mapping: MmapRaw,
    size: usize,
    handed_out: usize,
    residents: &'static [Resident],
}

impl Slab {
    /// Reserves address space for `count` stacks of `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of `mmap`: no address space (`RLIMIT_AS`, strict overcommit) or no more mappings.
    pub(crate) fn reserve(size: usize, count: usize) -> io::Result<Slab> {
        let length = size.checked_mul(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = MmapOptions::new().len(length).no_reserve_swap().map_anon()?;
        let mapping = MmapRaw::from(mapping);
        // Kernels without huge pages refuse, and have nothing to switch off.
        let _ = mapping.advise(Advice::NoHugePage);
        // As slabs, they stay. Zeroed memory takes none until it is written to.
        let residents = zeroed_residents(count)?.leak();
        Ok(Slab { mapping, size, handed_out: 0, residents })
    }

    /// Who is on the stacks that were handed out.
    pub(crate) fn residents(&self) -> &'static [Resident] {
        &self.residents[..self.handed_out]
    }

    /// Bytes of the mapping.
    pub(crate) fn length(&self) -> usize {
        self.mapping.len()
    }

    /// The next stack that was never handed out, guarded and zeroed; `None` when there is none.
    ///
    /// # Errors
    ///
    /// The kernel's when the guard cannot be installed: no memory for page tables, or, where it
    /// takes `mprotect`, no more mappings. The stack can be asked for again.
    pub(crate) fn carve(&mut self) -> io::Result<Option<(Stack, &'static Resident)>> {
        if (self.handed_out + 1) * self.size > self.mapping.len() {
            return Ok(None);
        }
        // SAFETY: the offset is within the mapping, as was just checked.
        let low = unsafe { self.mapping.as_mut_ptr().add(self.handed_out * self.size) };
        // SAFETY: that stack is not handed out yet, so nobody uses its lowest page.
        unsafe { guard(NonNull::new_unchecked(low))? };
        let resident = &self.residents[self.handed_out];
        self.handed_out += 1;
        // SAFETY: one past a part of the mapping is within or at the end of the mapping.
        let top = unsafe { NonNull::new_unchecked(low.add(self.size)) };
        Ok(Some((Stack { top, size: self.size }, resident)))
    }
}

/// So many, without occupants.
fn zeroed_residents(count: usize) -> io::Result<Vec<Resident>> {
    let layout =
        std::alloc::Layout::array::<Resident>(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: a slab has stacks, hence the layout a size.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    let Some(memory) = NonNull::new(memory) else { return Err(io::ErrorKind::OutOfMemory.into()) };
    // SAFETY: allocated as vectors do it, and zeroes are `Resident`s.
    Ok(unsafe { Vec::from_raw_parts(memory.as_ptr().cast(), count, count) })
}

/// How guard pages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuardKind {
    /// A marker in the page table; the mapping stays whole.
    Marker,
    /// A protected page, and with it one or two more mappings.
    Protected,
}

/// Makes the page at `low` one that faults when touched.
///
/// # Safety
///
/// It is a page of an anonymous private mapping that nobody uses.
unsafe fn guard(low: NonNull<u8>) -> io::Result<()> {
    static KIND: OnceLock<GuardKind> = OnceLock::new();
    let kind = KIND.get_or_init(|| {
        // SAFETY: as promised to this function; if it succeeds, it is what was wanted anyway.
        let marked = unsafe { install_marker(low) };
        if marked.is_ok() { GuardKind::Marker } else { GuardKind::Protected }
    });
    // SAFETY: as promised to this function.
    unsafe {
        match kind {
            GuardKind::Marker => install_marker(low),
            GuardKind::Protected => Ok(mprotect(low.cast(), page_size(), ProtFlags::PROT_NONE)?),
        }
    }
}

/// # Safety
///
/// As for [`guard`].
unsafe fn install_marker(low: NonNull<u8>) -> io::Result<()> {
    loop {
        // SAFETY: as promised to this function; an unknown advice is refused with EINVAL.
        let result = unsafe { libc::madvise(low.as_ptr().cast(), page_size(), MADV_GUARD_INSTALL) };
        match result {
            0 => return Ok(()),
            // A signal or a racing fault; madvise(2) says to try again.
            _ if nix::Error::last() == nix::Error::EINTR => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_powers_of_two_within_bounds() {
        assert_eq!(rounded_size(0), MIN_SIZE);
        assert_eq!(rounded_size(MIN_SIZE + 1), 2 * MIN_SIZE);
        assert_eq!(rounded_size(DEFAULT_SIZE), DEFAULT_SIZE);
        assert_eq!(rounded_size(usize::MAX), MAX_SIZE);
    }

    #[test]
    fn a_slab_hands_out_each_stack_once_and_then_none() {
        let mut slab = Slab::reserve(MIN_SIZE, 3).unwrap();
        let stacks: Vec<Stack> = std::iter::from_fn(|| Some(slab.carve().unwrap()?.0)).collect();
        assert_eq!(stacks.len(), 3);
        assert_eq!(stacks[0].top().as_ptr() as usize, stacks[1].limit() - page_size());
        for s in &stacks {
            // SAFETY: the word below the top belongs to a stack that this test alone holds.
            unsafe { s.top().cast::<u64>().sub(1).write(1) };
            assert!(s.guards(s.limit() - 1) && !s.guards(s.limit()));
        }
    }

    #[test]
    fn discarded_memory_reads_as_zero_and_kept_memory_stays() {
        let mut slab = Slab::reserve(MIN_SIZE, 1).unwrap();
        let (stack, _) = slab.carve().unwrap().unwrap();
        let words = stack.top().cast::<u64>();
        // SAFETY: all addresses are within the stack, which this test alone holds.
        unsafe {
            words.sub(1).write(7);
            words.sub(1 + page_size() / 8).write(8);
            stack.discard_below(page_size());
            assert_eq!(words.sub(1).read(), 7);
            assert_eq!(words.sub(1 + page_size() / 8).read(), 0);
        }
    }

    #[test]
    fn address_space_that_cannot_be_had_is_an_error() {
        assert!(Slab::reserve(MAX_SIZE, 1 << 20).is_err());
        assert!(Slab::reserve(MAX_SIZE, usize::MAX).is_err());
    }
}
