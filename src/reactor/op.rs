//! What can be asked of the kernel, and the record of one such op in flight.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use super::timer;
use crate::reason::WaitReason;

/// One operation, in the terms of the system call of the same name. Who submits it vouches for the
/// pointers until its completion.
///
/// Results are the system call's; with `MSG_WAITALL`, sends go on until all is sent, which `send(2)`
/// does not know. All exist in io_uring since Linux 5.7 at the latest where nothing else is said. Cancelled, they end with
/// `ECANCELED`, or with what was transferred before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// `accept4`: the new descriptor.
    Accept { fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: i32 },
    /// `connect`: 0.
    Connect { fd: RawFd, address: *const libc::sockaddr, length: libc::socklen_t },
    /// `recv`: bytes received, 0 at the end of the stream.
    Recv { fd: RawFd, buffer: *mut u8, length: u32, flags: i32 },
    /// `send`: bytes sent.
    Send { fd: RawFd, buffer: *const u8, length: u32, flags: i32 },
    /// `recvmsg`: bytes received.
    RecvMsg { fd: RawFd, message: *mut libc::msghdr, flags: i32 },
    /// `sendmsg`: bytes sent.
    SendMsg { fd: RawFd, message: *const libc::msghdr, flags: i32 },
    /// `pread`, or `read` if the offset is [`HERE`]: bytes read.
    Read { fd: RawFd, buffer: *mut u8, length: u32, offset: u64 },
    /// `pwrite`, or `write` if the offset is [`HERE`]: bytes written.
    Write { fd: RawFd, buffer: *const u8, length: u32, offset: u64 },
    /// `preadv`, or `readv` if the offset is [`HERE`]: bytes read.
    ReadV { fd: RawFd, vector: *const libc::iovec, count: u32, offset: u64 },
    /// `pwritev`, or `writev` if the offset is [`HERE`]: bytes written.
    WriteV { fd: RawFd, vector: *const libc::iovec, count: u32, offset: u64 },
    /// `poll` of one descriptor: the events that were found.
    Poll { fd: RawFd, events: u32 },
    /// `fsync`, or `fdatasync` if only the data matters.
    Fsync { fd: RawFd, data_only: bool },
    /// `openat`: the new descriptor.
    OpenAt { directory: RawFd, path: *const libc::c_char, flags: i32, mode: libc::mode_t },
    /// `waitid` (Linux 6.7): 0.
    WaitId { kind: libc::idtype_t, id: libc::id_t, info: *mut libc::siginfo_t, options: i32 },
    /// `futex_wait`, private or shared between processes (Linux 6.7): 0 when woken, `EAGAIN` if the word is not as
    /// expected.
    FutexWait { word: *const u32, expected: u32, private: bool },
}

/// The bytes that the kernel moves in one call at most: what fits an `int`, in whole pages.
pub(crate) const MAX_TRANSFER: usize = 0x7fff_f000;

/// The position of the file.
pub(crate) const HERE: u64 = u64::MAX;

impl Request {
    /// What its thread waits for.
    #[inline]
    pub(crate) fn reason(&self) -> WaitReason {
        match self {
            Request::Accept { .. } => WaitReason::Accept,
            Request::Connect { .. } => WaitReason::Connect,
            Request::Recv { .. } => WaitReason::Recv,
            Request::Send { .. } => WaitReason::Send,
            Request::RecvMsg { .. } => WaitReason::RecvMsg,
            Request::SendMsg { .. } => WaitReason::SendMsg,
            Request::Read { .. } => WaitReason::Read,
            Request::Write { .. } => WaitReason::Write,
            Request::ReadV { .. } => WaitReason::ReadV,
            Request::WriteV { .. } => WaitReason::WriteV,
            Request::Poll { .. } => WaitReason::Poll,
            Request::Fsync { .. } => WaitReason::Fsync,
            Request::OpenAt { .. } => WaitReason::OpenAt,
            Request::WaitId { .. } => WaitReason::WaitId,
            Request::FutexWait { .. } => WaitReason::FutexWait,
        }
    }
}

/// An op in flight. Lives on the stack of the thread that waits for it; accessed by that thread
/// before it leaves its worker and after it is resumed, in between by that worker alone.
#[derive(Debug)]
pub(crate) struct Op<W> {
    /// Who waits.
    pub(crate) waiter: W,
    /// What it is, for recordings and statistics.
    pub(crate) reason: WaitReason,
    /// Since when it is under way, in nanoseconds, if it is. For statistics.
    pub(crate) begun: Cell<Option<u64>>,
    /// The kernel's result: not negative, or a negated errno.
    pub(crate) result: Cell<i32>,
    /// The op's time-out, while it is armed.
    pub(crate) timer: Cell<Option<timer::Key>>,
    /// The time-out expired and the op was cancelled, with or without success.
    pub(crate) timed_out: Cell<bool>,
    /// Its place in the driver's list of ops to be cancelled.
    pub(super) cancel: Cancel<W>,
}

/// A place in a list of ops that is linked through them, so that none has to be allocated.
#[derive(Debug)]
pub(super) struct Cancel<W> {
    pub(super) listed: Cell<bool>,
    pub(super) previous: Cell<Option<NonNull<Op<W>>>>,
    pub(super) next: Cell<Option<NonNull<Op<W>>>>,
}

impl<W> Op<W> {
    pub(crate) fn new(waiter: W, reason: WaitReason) -> Op<W> {
        Op {
            waiter,
            reason,
            begun: Cell::new(None),
            result: Cell::new(0),
            timer: Cell::new(None),
            timed_out: Cell::new(false),
            cancel: Cancel {
                listed: Cell::new(false),
                previous: Cell::new(None),
                next: Cell::new(None),
            },
        }
    }

    /// The outcome, once the op was reported: what was transferred counts even if the time-out
    /// expired meanwhile.
    pub(crate) fn outcome(&self) -> std::io::Result<u32> {
        match self.result.get() {
            // EINTR: it was cancelled while a kernel thread waited on its behalf.
            e if self.timed_out.get() && (e == -libc::ECANCELED || e == -libc::EINTR) => {
                Err(std::io::ErrorKind::TimedOut.into())
            }
            e if e < 0 => Err(std::io::Error::from_raw_os_error(-e)),
            n => Ok(n as u32),
        }
    }
}
