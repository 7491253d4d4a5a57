//! What a replacement tells the one who called it.

use std::ffi::c_int;

use nix::errno::Errno;

/// The end of a call that a replacement was asked to do on a green thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It is done; this is its result.
    Done(isize),
    /// The same, by a call of the C library's that never blocks: nothing was saved.
    Quick(isize),
    /// It has failed, for this reason.
    Failed(c_int),
    /// The C library's function shall do it: it will not block, or must not be done by another.
    Forward,
    /// The C library's function shall do it, on a helper, since it will block.
    Help,
}

impl Answer {
    /// What a function of the C library returned that reports errors through `errno`.
    pub(super) fn of(result: isize) -> Answer {
        if result < 0 { Answer::Failed(Errno::last_raw()) } else { Answer::Done(result) }
    }
}

impl From<Result<usize, c_int>> for Answer {
    fn from(result: Result<usize, c_int>) -> Answer {
        match result {
            Ok(value) => Answer::Done(value as isize),
            Err(error) => Answer::Failed(error),
        }
    }
}
