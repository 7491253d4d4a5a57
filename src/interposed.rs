//! Whether the C library's functions come to this crate (see `interpose`).

/// A number that is no system call's, to which only this crate's `syscall` has an answer.
pub(crate) const PROBE: libc::c_long = -0x7574_6872;

/// Whether calls of the C library's blocking functions come to this crate, so that they park green threads.
///
/// If not (the feature `interpose` is off, or the program was linked in a way that binds such calls to the C library:
/// see the documentation of the crate), they block the OS thread; the green thread is then moved to a helper after
/// some milliseconds. [`Stats::interposed`](crate::Stats::interposed) counts the calls.
///
/// # Examples
///
/// ```
/// assert_eq!(uthread::interposed(), cfg!(feature = "interpose"));
/// ```
pub fn interposed() -> bool {
    let _errno = crate::preempt::KeepErrno::new();
    // SAFETY: an unknown system call is an error.
    unsafe { libc::syscall(PROBE) == PROBE }
}
