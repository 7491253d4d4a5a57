//! Reading memory that others write meanwhile.
//!
//! **Problem.** Reports show control blocks and stacks of threads that run, end, and are replaced by others at
//! any instant. A plain read of such memory is a data race, and of memory that was given back a fault.
//!
//! **Alternatives.** To stop all threads for a report makes it a disturbance. To keep what reports need in
//! atomic words, or behind locks, costs each switch. Neither helps with stacks.
//!
//! **Choice.** The kernel copies: `process_vm_readv(2)`, since Linux 3.2, on the own process. What comes is a
//! copy of bytes that may be torn or old; who asked finds out whether it is of use by what it reads before and
//! after. An address at which there is nothing is an error, not a fault.
//!
//! **Where memory stays.** For each range the kernel finds the mapping and the page, takes hold of the page, copies, and
//! lets go: of a hundred thousand control blocks, twice what the copying takes. They lie in slabs, which are
//! never unmapped; so they are copied by instructions of our own ([`observe`]), word by word. These are
//! assembly: what they bring comes, for the compiler, from outside, as what the kernel copies does; it is no access of the
//! program's that could race with another, and no word is torn.

use std::io;
use std::mem::MaybeUninit;

use crate::arch::observe;

/// Ranges in one call, the kernel's `IOV_MAX` at most.
const MOST: usize = 512;

/// Copies `length` bytes from each of these addresses to `into`, one after the other; how many addresses could be
/// read, up to the first that could not.
///
/// # Errors
///
/// The kernel has no such call (`CONFIG_CROSS_MEMORY_ATTACH`), or a filter forbids it (seccomp(2)).
pub(crate) fn copy(from: &[usize], length: usize, into: &mut [u8]) -> io::Result<usize> {
    assert!(into.len() >= from.len() * length, "there is room for all");
    if length == 0 {
        return Ok(from.len());
    }
    let mut done = 0;
    for (part, chunk) in from.chunks(MOST).zip(into.chunks_mut(MOST * length)) {
        let remote = part
            .iter()
            .map(|at| libc::iovec {
                iov_base: std::ptr::without_provenance_mut(*at),
                iov_len: length,
            })
            .collect::<Vec<_>>();
        part.iter().for_each(|at| prefetch(*at, length));
        let read = read(&remote, &mut chunk[..part.len() * length])? / length;
        done += read;
        if read < part.len() {
            break;
        }
    }
    Ok(done)
}

/// Copies what lies at each of these addresses, word by word, to `into`, one after the other. All are fetched first: not
/// more at a time than a cache holds.
///
/// # Safety
///
/// All of it is mapped, and stays so. The addresses, and sizes of `T`, are multiples of a word's.
pub(crate) unsafe fn copy_mapped<T>(from: &[usize], into: &mut [MaybeUninit<T>]) {
    const WORD: usize = size_of::<usize>();
    const { assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() >= WORD) };
    assert!(into.len() >= from.len(), "there is room for all");
    from.iter().for_each(|at| prefetch(*at, size_of::<T>()));
    for (at, into) in from.iter().zip(into) {
        let words = into.as_mut_ptr().cast::<usize>();
        for word in 0..size_of::<T>() / WORD {
            // SAFETY: as promised to this function; and within `into`, which is as long and aligned at least to words.
            unsafe { words.add(word).write(observe(at + word * WORD)) };
        }
    }
}

/// Copies the bytes at an address; fewer if those behind cannot be read.
///
/// # Errors
///
/// As for [`copy`].
pub(crate) fn copy_range(from: usize, length: usize) -> io::Result<Vec<u8>> {
    // Page by page, since of a range that cannot be read at its end nothing might be.
    const PAGE: usize = 4096;
    let end = from.saturating_add(length);
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        let at = from + done;
        let part = (PAGE - at % PAGE).min(end - at);
        if copy(&[at], part, &mut bytes[done..done + part])? == 0 {
            break;
        }
        done += part;
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Copies the bytes of each of these ranges (address and length), which are short; none of a range that cannot be
/// read.
///
/// # Errors
///
/// As for [`copy`].
pub(crate) fn copy_ranges(ranges: &[(usize, usize)]) -> io::Result<Vec<Vec<u8>>> {
    let mut copies = Vec::with_capacity(ranges.len());
    while copies.len() < ranges.len() {
        let part = &ranges[copies.len()..ranges.len().min(copies.len() + MOST)];
        let mut bytes = vec![0; part.iter().map(|(_, length)| length).sum()];
        let remote = part
            .iter()
            .map(|(at, length)| libc::iovec {
                iov_base: std::ptr::without_provenance_mut(*at),
                iov_len: *length,
            })
            .collect::<Vec<_>>();
        part.iter().for_each(|(at, length)| prefetch(*at, *length));
        let read = read(&remote, &mut bytes)?;
        let mut end = 0;
        for (_, length) in part {
            end += length;
            if end > read {
                // What is behind it is read next.
                copies.push(Vec::new());
                break;
            }
            copies.push(bytes[end - length..end].to_vec());
        }
    }
    Ok(copies)
}

/// Copies the bytes at an address, as far as they can be read; how many. Async-signal-safe (signal-safety(7)), but
/// for `errno`.
pub(crate) fn copy_now(from: usize, into: &mut [u8]) -> usize {
    let remote =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(from), iov_len: into.len() };
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: as in `copy`.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

/// Has the processor fetch what is there, if anything is, and what it takes to find it: who copies range by
/// range would wait for memory at each of them.
fn prefetch(at: usize, length: usize) {
    /// Bytes of a cache line.
    const LINE: usize = 64;
    let lines = (at / LINE * LINE..at.saturating_add(length)).step_by(LINE);
    // SAFETY: a prefetch is a hint: it has no effect on the program, whatever the address.
    #[cfg(target_arch = "x86_64")]
    lines.for_each(|line| unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(line));
    });
    #[cfg(not(target_arch = "x86_64"))]
    drop(lines);
}

/// Copies these ranges one after the other, up to the first that cannot be read; how many bytes.
fn read(remote: &[libc::iovec], into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let count = remote.len() as u64;
    // SAFETY: the kernel writes to `into`, which is borrowed mutably and of that size; what it reads it checks
    // itself. getpid has no preconditions.
    let read =
        unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, remote.as_ptr(), count, 0) };
    match usize::try_from(read) {
        Ok(read) => Ok(read),
        Err(_) => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EFAULT) => Ok(0),
            e => Err(explain(e)),
        },
    }
}

fn explain(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "cannot look at the process's threads: process_vm_readv: {error}; it may be forbidden by a seccomp filter"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_from_several_places() {
        let words: Vec<u32> = (0..2000).collect();
        let from: Vec<usize> = words.iter().rev().map(|w| std::ptr::from_ref(w).addr()).collect();
        let mut bytes = vec![0; 8000];
        assert_eq!(copy(&from, 4, &mut bytes).unwrap(), 2000);
        let read = bytes.chunks(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap()));
        assert!(read.eq((0..2000).rev()));
    }

    #[test]
    fn what_is_mapped_is_copied_whole() {
        let blocks: Vec<[u64; 9]> = (0..100).map(|i| [i; 9]).collect();
        let from: Vec<usize> = blocks.iter().rev().map(|b| std::ptr::from_ref(b).addr()).collect();
        let mut copies = vec![MaybeUninit::<[u64; 9]>::uninit(); 100];
        // SAFETY: the vector's elements.
        unsafe { copy_mapped(&from, &mut copies) };
        // SAFETY: all of them were written.
        let copies = copies.iter().map(|copy| unsafe { copy.assume_init() });
        assert!(copies.eq(blocks.iter().rev().copied()));
    }

    #[test]
    fn of_ranges_each_is_whole_or_empty() {
        let text = b"one two three";
        let at = |offset: usize| text.as_ptr().addr() + offset;
        let many: Vec<_> =
            (0..1000).map(|i| if i % 3 == 1 { (8, 3) } else { (at(4), 3) }).collect();
        let copies = copy_ranges(&many).unwrap();
        let wanted = |i: usize| if i % 3 == 1 { "" } else { "two" };
        assert!(copies.iter().enumerate().all(|(i, copy)| copy == wanted(i).as_bytes()));
        assert_eq!(copies.len(), 1000);
        assert_eq!(
            copy_ranges(&[(at(8), 5), (at(0), 3)]).unwrap(),
            [b"three".to_vec(), b"one".to_vec()]
        );
    }

    #[test]
    fn where_there_is_nothing_less_comes() {
        let word = 7_u32;
        let here = std::ptr::from_ref(&word).addr();
        let mut bytes = [0; 12];
        assert_eq!(copy(&[here, 8, here], 4, &mut bytes).unwrap(), 1);
        assert!(copy_range(8, 100).unwrap().is_empty());
        assert_eq!(copy(&[8, here], 0, &mut []).unwrap(), 2, "nothing is everywhere");
        assert_eq!(copy_range(here, 4).unwrap(), 7_u32.to_ne_bytes());
    }
}
