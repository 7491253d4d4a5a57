//! The values of `pthread_setspecific`, whose destructors an ending thread runs.
//!
//! `std` itself depends on them (its handle of the current thread is released by one), and so do C
//! and C++ libraries. glibc runs them in `__nptl_deallocate_tsd`, which is private, so this module
//! does the same from the tables that glibc describes to debuggers. A thread's table has two levels:
//! `specific` in `struct pthread` points to blocks of values, the first of which lies in the structure
//! itself. A key's sequence number is odd while it is in use and tells a value of a deleted key.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::glibc::Glibc;
use crate::arch;

/// A destructor may set values again; POSIX lets an implementation stop after this many rounds
/// (PTHREAD_DESTRUCTOR_ITERATIONS), and glibc does.
const ROUNDS: usize = 4;

/// Runs the destructors of the calling thread's values.
pub(super) fn run_destructors(glibc: &Glibc) {
    let own =
        NonNull::new(arch::thread_pointer() as *mut u8).expect("a thread has a thread pointer");
    let pthread = glibc.pthread_of(own);
    // SAFETY: a destructor is called with a value that was set for its key.
    let run = |destructor: Destructor, value| unsafe { destructor(value) };
    for _ in 0..ROUNDS {
        // SAFETY: it is the calling thread's own structure.
        if !unsafe { take_values(glibc, pthread, run) } {
            return;
        }
        // A destructor may have used thread-locals with destructors of their own.
        glibc.call_tls_dtors();
    }
    // What destructors set in the last round must not be found by the block's next occupant.
    // SAFETY: as above.
    unsafe { take_values(glibc, pthread, |_, _| ()) };
}

type Destructor = unsafe extern "C" fn(*mut c_void);

/// Takes all values out and shows those that have a destructor to `taken`; whether there were any.
///
/// # Safety
///
/// `pthread` is the calling thread's.
unsafe fn take_values(
    glibc: &Glibc,
    pthread: NonNull<u8>,
    taken: impl Fn(Destructor, *mut c_void),
) -> bool {
    let keys = &glibc.keys;
    let mut ran = false;
    let created = keys_ever_created(glibc);
    for first in 0..created.div_ceil(keys.second_level_length) {
        // SAFETY: the index is within the array, and only this thread changes it.
        let block = unsafe { keys.specific.element::<Option<NonNull<u8>>>(pthread, first).read() };
        let Some(block) = block else { continue };
        let created_here = created - first * keys.second_level_length;
        for second in 0..created_here.min(keys.second_level_length) {
            // SAFETY: the index is within the block. The value is cleared before its destructor
            // runs, as POSIX asks, and the destructor is the one that was given with the key.
            unsafe {
                let entry = keys.second_level.element::<u8>(block, second);
                let value = keys.data_value.of::<*mut c_void>(entry);
                let data = value.read();
                if data.is_null() {
                    continue;
                }
                value.write(std::ptr::null_mut());
                let seq = keys.data_seq.of::<usize>(entry).read();
                if let Some(destructor) =
                    destructor_of(glibc, first * keys.second_level_length + second, seq)
                {
                    taken(destructor, data);
                    ran = true;
                }
            }
        }
    }
    ran
}

/// How many keys the process has ever had: the first so many of the table.
///
/// libc gives out the first free key, and a key's sequence number is 0 until it is first given out. So
/// keys that were ever in use come before those that never were, and a thread that has a value for one
/// sees it counted here. Most processes have a handful, out of room for a thousand.
fn keys_ever_created(glibc: &Glibc) -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    let keys = &glibc.keys;
    let most = keys.table_length.min(keys.specific_length * keys.second_level_length);
    let known = KNOWN.load(Ordering::Relaxed);
    let mut created = known;
    while created < most && seq_of(glibc, created) != 0 {
        created += 1;
    }
    if created != known {
        KNOWN.fetch_max(created, Ordering::Relaxed);
    }
    created
}

/// The sequence number of key `index`, which is within the table.
fn seq_of(glibc: &Glibc, index: usize) -> usize {
    let keys = &glibc.keys;
    debug_assert!(index < keys.table_length);
    // SAFETY: the index is within the table. Other threads may create and delete keys meanwhile, so
    // the number is read atomically, as glibc does.
    unsafe {
        let key = keys.table.add(index * keys.sizeof_key);
        AtomicUsize::from_ptr(keys.key_seq.of::<usize>(key).as_ptr()).load(Ordering::Acquire)
    }
}

/// The destructor of key `index` if it still is the key that had sequence number `seq`.
fn destructor_of(glibc: &Glibc, index: usize, seq: usize) -> Option<Destructor> {
    let keys = &glibc.keys;
    if seq_of(glibc, index) != seq {
        return None;
    }
    // SAFETY: the index is within the table. A key that is deleted while a thread still runs its
    // destructor is the program's fault (pthread_key_delete(3)).
    unsafe {
        let key = keys.table.add(index * keys.sizeof_key);
        let destructor = AtomicUsize::from_ptr(keys.key_destructor.of::<usize>(key).as_ptr());
        let destructor = destructor.load(Ordering::Relaxed);
        std::mem::transmute::<usize, Option<Destructor>>(destructor)
    }
}

/// Frees the blocks of values that libc allocated for a thread with many keys.
///
/// # Safety
///
/// Nobody uses the thread block, whose destructors have run.
pub(super) unsafe fn free_second_level(glibc: &Glibc, thread_pointer: NonNull<u8>) {
    let pthread = glibc.pthread_of(thread_pointer);
    // The first block is part of the structure.
    for first in 1..glibc.keys.specific_length {
        // SAFETY: libc allocates these with calloc (nptl/pthread_setspecific.c), and the pointer is
        // cleared, so that it is freed once.
        unsafe {
            let slot = glibc.keys.specific.element::<*mut c_void>(pthread, first);
            libc::free(slot.read());
            slot.write(std::ptr::null_mut());
        }
    }
}
