//! What a replacement tells the one who called it.

use std::ffi::c_int;
use std::io;

/// The end of a call that a replacement was asked to do on a green thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It is done; this is its result.
    Done(isize),
    /// It has failed, for this reason.
    Failed(c_int),
    /// The C library's function shall do it, though it may block.
    Forward,
}

impl From<io::Result<u32>> for Answer {
    fn from(result: io::Result<u32>) -> Answer {
        match result {
            Ok(value) => Answer::Done(value as isize),
            Err(error) => Answer::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

/// Sets the caller's `errno`.
pub(super) fn set_errno(error: c_int) {
    // SAFETY: the location is the calling thread's own.
    unsafe { *libc::__errno_location() = error };
}
