//! Waiting for a word of memory in the kernel, by the ring: for locks whose other users know the kernel only.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::sleep::Until;
use crate::reactor::op::Request;
use crate::worker::perform;

/// Why a wait has ended.
pub(super) enum Outcome {
    /// The word may have changed.
    Again,
    /// It has not been waited for: it is too late for that.
    TimeIsUp,
    /// The kernel cannot wait like this.
    Unknown,
}

/// Parks the calling green thread until it is woken, or the word is not as expected, or the time is up.
pub(super) fn wait_for(
    word: &AtomicU32,
    expected: u32,
    private: bool,
    until: Option<Until>,
) -> Outcome {
    /// The kernel is older than Linux 6.7.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    let rest = until.map(Until::rest);
    if rest == Some(None) {
        return Outcome::TimeIsUp;
    }
    if UNKNOWN.load(Ordering::Relaxed) {
        return Outcome::Unknown;
    }
    let request = Request::FutexWait { word: word.as_ptr(), expected, private };
    // SAFETY: the word is borrowed until this returns; the caller is a green thread.
    let Err(error) = (unsafe { perform(request, rest.flatten()) }) else { return Outcome::Again };
    match error.raw_os_error() {
        // That the time is up has no number. The word is looked at once more.
        None | Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED) => Outcome::Again,
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            UNKNOWN.store(true, Ordering::Relaxed);
            Outcome::Unknown
        }
        // No memory, perhaps.
        Some(_) => Outcome::Unknown,
    }
}
