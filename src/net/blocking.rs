//! How long a call on one socket may block: not at all, for a time, or for ever.
//!
//! **Problem.** The kernel keeps three settings per socket that decide it: `O_NONBLOCK`,
//! `SO_RCVTIMEO` and `SO_SNDTIMEO`. A system call heeds them. An op heeds none: io_uring polls a
//! non-blocking socket by itself until the op can complete, and does not look at the time-outs. So
//! a green thread has to know the settings before it parks.
//!
//! **Alternatives.** Asking the kernel before each op is exact even when the settings are changed
//! through a bare descriptor, but one request and its answer would cost several more system calls.
//! An [`Arc`] beside every descriptor costs a load per call, but also an allocation per accepted
//! connection, for settings that most programs never touch.
//!
//! **Choice.** A [`BlockingMode`] is empty, which means "for ever", until a setting is changed or
//! the handle is cloned; only then does it allocate what the clones share. The kernel's settings
//! are always set as well: they serve OS threads and whoever takes the descriptor out of this
//! crate. Of a descriptor that comes in they are read.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{GetSockOpt, getsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::reactor::op::Request;
use crate::worker;

/// What this crate knows of a socket's blocking settings; empty while they are the defaults and
/// nobody shares them.
#[derive(Default)]
pub(super) struct BlockingMode(OnceLock<Arc<Settings>>);

/// The settings of one socket, shared by the handles that `try_clone` made of it.
///
/// Each field stands alone and publishes nothing else, so `Relaxed` is enough: a thread that learns
/// of a change in any ordered way sees it.
#[derive(Default)]
struct Settings {
    nonblocking: AtomicBool,
    read_timeout: Timeout,
    write_timeout: Timeout,
}

impl BlockingMode {
    /// Reads the settings of a socket that was made elsewhere.
    ///
    /// A descriptor that cannot answer is not a socket; it has no settings, and its first use will
    /// say so.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Self {
        Self::new(
            is_nonblocking(socket),
            kernel_timeout(socket, sockopt::ReceiveTimeout),
            kernel_timeout(socket, sockopt::SendTimeout),
        )
    }

    fn new(
        nonblocking: bool,
        read_timeout: Option<Duration>,
        write_timeout: Option<Duration>,
    ) -> Self {
        let mode = Self::default();
        if nonblocking || read_timeout.is_some() || write_timeout.is_some() {
            mode.set_nonblocking(nonblocking);
            mode.set_read_timeout(read_timeout);
            mode.set_write_timeout(write_timeout);
        }
        mode
    }

    /// The mode of a second handle to the same socket.
    pub(super) fn share(&self) -> Self {
        Self(OnceLock::from(Arc::clone(self.settings())))
    }

    /// The mode of a socket accepted from this one: Linux hands on the time-outs but not
    /// `O_NONBLOCK`.
    pub(super) fn inherited(&self) -> Self {
        Self::new(false, self.read_timeout(), self.write_timeout())
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.settings().nonblocking.store(nonblocking, Relaxed);
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.settings().read_timeout.set(timeout);
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.settings().write_timeout.set(timeout);
    }

    /// Leave to park, if that is how the calling thread waits for this socket. `None` on an OS
    /// thread, which blocks in the kernel, and in non-blocking mode, where nobody waits: there
    /// `std`'s own call is right.
    pub(super) fn parking(&self) -> Option<Parking> {
        Parking::here().filter(|_| !self.is_nonblocking())
    }

    /// Runs an op that takes bytes or a connection from the socket, for as long as the read time-out
    /// allows.
    ///
    /// # Safety
    /// The request's pointers must be valid until this returns.
    pub(super) unsafe fn perform_read(
        &self,
        parking: Parking,
        request: Request,
    ) -> io::Result<u32> {
        // SAFETY: the caller answers for the pointers.
        unsafe { parking.perform(request, self.read_timeout()) }.map_err(expired_as_would_block)
    }

    /// Runs an op that gives bytes to the socket, for as long as the write time-out allows.
    ///
    /// # Safety
    /// The request's pointers must be valid until this returns.
    pub(super) unsafe fn perform_write(
        &self,
        parking: Parking,
        request: Request,
    ) -> io::Result<u32> {
        // SAFETY: the caller answers for the pointers.
        unsafe { parking.perform(request, self.write_timeout()) }.map_err(expired_as_would_block)
    }

    fn settings(&self) -> &Arc<Settings> {
        self.0.get_or_init(Arc::default)
    }

    fn is_nonblocking(&self) -> bool {
        self.0.get().is_some_and(|settings| settings.nonblocking.load(Relaxed))
    }

    fn read_timeout(&self) -> Option<Duration> {
        self.0.get()?.read_timeout.get()
    }

    fn write_timeout(&self) -> Option<Duration> {
        self.0.get()?.write_timeout.get()
    }
}

/// Leave to park: proof that the calling thread is a green thread. It is bound to that thread.
#[derive(Clone, Copy)]
pub(super) struct Parking(PhantomData<*const ()>);

impl Parking {
    /// `Some` on a green thread.
    pub(super) fn here() -> Option<Self> {
        worker::on_green_thread().then_some(Self(PhantomData))
    }

    /// Parks until `request` completes, or until `timeout` has cancelled it; see [`is_expiry`].
    ///
    /// # Safety
    /// The request's pointers must be valid until this returns.
    pub(super) unsafe fn perform(
        self,
        request: Request,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        // SAFETY: the caller answers for the pointers; a `Parking` exists on green threads alone.
        unsafe { worker::perform(request, timeout) }
    }
}

/// True of the error of an op that its time-out cancelled. The kernel's own `ETIMEDOUT`, of a peer
/// that does not answer, has the same kind but comes with its number.
pub(super) fn is_expiry(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

/// An expired `SO_RCVTIMEO` or `SO_SNDTIMEO` is `EAGAIN` to a system call, so it is here.
fn expired_as_would_block(error: io::Error) -> io::Error {
    if is_expiry(&error) { io::Error::from_raw_os_error(libc::EAGAIN) } else { error }
}

/// A time-out in nanoseconds; zero stands for none, as in the socket option.
#[derive(Default)]
struct Timeout(AtomicU64);

impl Timeout {
    /// A span beyond the counter's range (584 years) is no time-out, as one beyond the kernel's
    /// range is.
    fn set(&self, timeout: Option<Duration>) {
        let nanoseconds = timeout.and_then(|span| u64::try_from(span.as_nanos()).ok());
        self.0.store(nanoseconds.unwrap_or(0), Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }
}

fn is_nonblocking(socket: BorrowedFd<'_>) -> bool {
    fcntl(socket, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

fn kernel_timeout(
    socket: BorrowedFd<'_>,
    option: impl GetSockOpt<Val = TimeVal>,
) -> Option<Duration> {
    let microseconds = getsockopt(&socket, option).ok()?.num_microseconds();
    u64::try_from(microseconds).ok().filter(|&span| span > 0).map(Duration::from_micros)
}
