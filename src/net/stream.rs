//! [`TcpStream`]: connecting, reading and writing.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::linux::net::TcpStreamExt;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket,
};

use super::blocking::{BlockingMode, Parking, is_expiry};
use super::uninterrupted;
use crate::reactor::op::{MAX_TRANSFER, Request};

/// The slices that the kernel takes in one call at most.
const MAX_SLICES: usize = libc::UIO_MAXIOV as usize;

/// The flags of a send: like the system call on a blocking socket, the op is to send all it was
/// given. `std`, too, wants an error and not a signal from a peer that is gone.
const ALL: MsgFlags = MsgFlags::MSG_WAITALL.union(MsgFlags::MSG_NOSIGNAL);

/// A TCP stream between a local and a remote socket: [`std::net::TcpStream`] for green threads.
///
/// It is made by [`connect`](Self::connect) or [`TcpListener::accept`](super::TcpListener::accept)
/// and closed when the value is dropped. Through `&TcpStream`, several threads may read and write
/// it at once.
///
/// # Blocking
/// Reading parks a green thread, and blocks an OS thread, until there are bytes or the peer has
/// finished; writing, until the socket's buffer has taken all bytes. In non-blocking mode neither
/// waits.
///
/// # Cancellation
/// When a time-out expires, the op is cancelled and waited for. What it had transferred by then is
/// the result; if that is nothing, the error is [`WouldBlock`](io::ErrorKind::WouldBlock), as
/// `std`'s on Unix. No byte is lost, and the stream stays usable.
///
/// # Examples
/// ```no_run
/// use std::io::{Read, Write};
/// use uthread::net::TcpStream;
///
/// let mut stream = TcpStream::connect("127.0.0.1:8080")?;
/// stream.write_all(&[1])?;
/// stream.read_exact(&mut [0; 128])?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    inner: std::net::TcpStream,
    mode: BlockingMode,
}

impl TcpStream {
    pub(super) fn new(inner: std::net::TcpStream, mode: BlockingMode) -> Self {
        Self { inner, mode }
    }

    /// A socket that was just made has the default settings, which need not be read.
    fn fresh(inner: std::net::TcpStream) -> Self {
        Self::new(inner, BlockingMode::default())
    }

    /// Opens a connection to `addr`.
    ///
    /// If it yields several addresses, they are tried one after the other until one accepts.
    ///
    /// # Errors
    /// That of the last address tried; [`InvalidInput`](io::ErrorKind::InvalidInput) if `addr`
    /// yields none.
    ///
    /// # Blocking
    /// Parks a green thread, blocks an OS thread, until the connection stands or fails. A host name
    /// is looked up on a helper, as in [`blocking`](crate::blocking), if calls of the C library come
    /// to this crate ([`interposed`](fn@crate::interposed)); else that blocks the OS thread until the
    /// thread is moved.
    ///
    /// # Examples
    /// ```
    /// use uthread::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        let Some(parking) = Parking::here() else {
            return std::net::TcpStream::connect(addr).map(Self::fresh);
        };
        let mut result = Err(no_addresses());
        for address in addr.to_socket_addrs()? {
            result = park_for_connect(parking, &address, None).map(Self::fresh);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Opens a connection to `addr`, or gives up after `timeout`.
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) after `timeout`, and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if that is zero.
    ///
    /// # Blocking
    /// Parks a green thread, blocks an OS thread, until the connection stands or fails.
    ///
    /// # Cancellation
    /// When the time-out expires, the op is cancelled and waited for, and the socket is closed.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use uthread::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1))?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let inner = match Parking::here() {
            None => std::net::TcpStream::connect_timeout(addr, timeout),
            Some(_) if timeout.is_zero() => Err(zero_timeout()),
            Some(parking) => park_for_connect(parking, addr, Some(timeout)),
        };
        inner.map(Self::fresh)
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// Those of `getpeername`, such as [`NotConnected`](io::ErrorKind::NotConnected).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }

    /// The address of the local end.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Shuts down the read half, the write half or both, for every handle to the socket.
    ///
    /// A call that waits on a half when it is shut down returns at once, on whichever thread.
    ///
    /// # Errors
    /// Those of `shutdown`, such as [`NotConnected`](io::ErrorKind::NotConnected).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)
    }

    /// A second handle to the same socket. Both read and write the same stream of bytes; an option
    /// set on one, time-outs included, holds for both.
    ///
    /// # Errors
    /// Those of duplicating a descriptor, such as having too many.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        let inner = self.inner.try_clone()?;
        Ok(Self::new(inner, self.mode.share()))
    }

    /// Sets how long reading may wait; `None` is for ever.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a span of zero.
    ///
    /// # Examples
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::time::Duration;
    /// use uthread::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    /// let error = stream.read(&mut [0; 1]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.inner.set_read_timeout(dur)?;
        self.mode.set_read_timeout(dur);
        Ok(())
    }

    /// Sets how long writing may wait; `None` is for ever.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a span of zero.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.inner.set_write_timeout(dur)?;
        self.mode.set_write_timeout(dur);
        Ok(())
    }

    /// How long reading may wait, as the kernel keeps it: rounded up to its clock ticks.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.inner.read_timeout()
    }

    /// How long writing may wait, as the kernel keeps it: rounded up to its clock ticks.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.inner.write_timeout()
    }

    /// Reads like [`Read::read`] and leaves the bytes in the stream.
    ///
    /// # Errors
    /// Those of reading.
    ///
    /// # Blocking
    /// As reading.
    ///
    /// # Cancellation
    /// As reading.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.mode.parking() {
            None => self.inner.peek(buf),
            Some(parking) => self.receive(parking, buf, libc::MSG_PEEK),
        }
    }

    /// Sets whether segments are sent as soon as possible, however small (`TCP_NODELAY`).
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner.set_nodelay(nodelay)
    }

    /// Whether segments are sent as soon as possible (`TCP_NODELAY`).
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner.nodelay()
    }

    /// Sets the time to live of the packets sent from this socket (`IP_TTL`).
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.inner.set_ttl(ttl)
    }

    /// The time to live of the packets sent from this socket (`IP_TTL`).
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.inner.ttl()
    }

    /// Sets whether acknowledgements are sent at once (`TCP_QUICKACK`). The kernel may reset it
    /// later. In `std` this is a method of [`TcpStreamExt`].
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.inner.set_quickack(quickack)
    }

    /// Whether acknowledgements are sent at once (`TCP_QUICKACK`). In `std` this is a method of
    /// [`TcpStreamExt`].
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn quickack(&self) -> io::Result<bool> {
        self.inner.quickack()
    }

    /// Takes the pending error of this socket (`SO_ERROR`), if there is one.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.take_error()
    }

    /// Moves this stream, with all its clones, into or out of non-blocking mode.
    ///
    /// In non-blocking mode reading and writing never wait, whichever kind of thread calls:
    /// where they would, they give [`WouldBlock`](io::ErrorKind::WouldBlock).
    ///
    /// # Errors
    /// Those of `ioctl`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)?;
        self.mode.set_nonblocking(nonblocking);
        Ok(())
    }
}

/// What a green thread does where an OS thread would block.
impl TcpStream {
    /// Goes straight to the ring: whoever reads is mostly ahead of the peer, so that a direct try
    /// would mostly be a system call in vain.
    fn receive(&self, parking: Parking, buf: &mut [u8], flags: i32) -> io::Result<usize> {
        let request = Request::Recv {
            fd: self.as_raw_fd(),
            buffer: buf.as_mut_ptr(),
            length: buf.len().min(MAX_TRANSFER) as u32,
            flags,
        };
        // SAFETY: `buf` is borrowed until the call returns.
        let received = unsafe { self.mode.perform_read(parking, request) }?;
        Ok(received as usize)
    }

    /// As [`receive`](Self::receive), into several buffers.
    fn receive_vectored(&self, parking: Parking, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = bufs.len().min(MAX_SLICES);
        let bufs = &mut bufs[..count];
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0); // `readv`, which `std` calls, does not wait then; `recvmsg` does
        }
        let mut message = message(bufs.as_mut_ptr().cast(), bufs.len());
        let request = Request::RecvMsg { fd: self.as_raw_fd(), message: &mut message, flags: 0 };
        // SAFETY: `message` and the buffers behind it are borrowed until the call returns.
        let received = unsafe { self.mode.perform_read(parking, request) }?;
        Ok(received as usize)
    }

    /// Goes straight to the ring, although the socket's buffer nearly always has room: the sends of
    /// one round are then carried out by one system call, one after the other, which is cheaper even
    /// with the switch away and back (15 % of an echo's cost with a thousand connections).
    fn transmit(&self, parking: Parking, buf: &[u8]) -> io::Result<usize> {
        let length = buf.len().min(MAX_TRANSFER) as u32;
        let request =
            Request::Send { fd: self.as_raw_fd(), buffer: buf.as_ptr(), length, flags: ALL.bits() };
        // SAFETY: `buf` is borrowed until the call returns.
        let sent = unsafe { self.mode.perform_write(parking, request) }?;
        Ok(sent as usize)
    }

    /// As [`transmit`](Self::transmit), from several buffers.
    fn transmit_vectored(&self, parking: Parking, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(MAX_SLICES)];
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0); // `writev`, which `std` calls, does not look at the socket then
        }
        let message = message(bufs.as_ptr().cast_mut().cast(), bufs.len());
        let request =
            Request::SendMsg { fd: self.as_raw_fd(), message: &message, flags: ALL.bits() };
        // SAFETY: `message` and the buffers behind it, of which the kernel only reads, are borrowed
        // until the call returns. `IoSlice` has the layout of `iovec`.
        let sent = unsafe { self.mode.perform_write(parking, request) }?;
        Ok(sent as usize)
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.mode.parking() {
            None => (&self.inner).read(buf),
            Some(parking) => self.receive(parking, buf, 0),
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.mode.parking() {
            None => (&self.inner).read_vectored(bufs),
            Some(parking) => self.receive_vectored(parking, bufs),
        }
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.mode.parking() {
            None => (&self.inner).write(buf),
            Some(parking) => self.transmit(parking, buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.mode.parking() {
            None => (&self.inner).write_vectored(bufs),
            Some(parking) => self.transmit_vectored(parking, bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

descriptor_conversions!(TcpStream);

/// Connects a new socket to `address`.
fn park_for_connect(
    parking: Parking,
    address: &SocketAddr,
    timeout: Option<Duration>,
) -> io::Result<std::net::TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = SockaddrStorage::from(*address);
    let result = uninterrupted(|| {
        let request = Request::Connect {
            fd: socket.as_raw_fd(),
            address: address.as_ptr(),
            length: address.len(),
        };
        // SAFETY: `address` outlives the call.
        unsafe { parking.perform(request, timeout) }
    });
    match result {
        Ok(_) => Ok(socket.into()),
        // An attempt that was interrupted went on in the kernel, and has succeeded since.
        Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(socket.into()),
        Err(error) if is_expiry(&error) => Err(connect_timed_out()),
        Err(error) => Err(error),
    }
}

/// A message of `count` slices without address and control data.
fn message(slices: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: zero is a value of each of its fields, which are integers and nullable pointers.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = slices;
    message.msg_iovlen = count as _; // `usize` in one libc, `int` in another
    message
}

// The errors that `std` makes itself, in its words.

fn no_addresses() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
}

fn zero_timeout() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout")
}

fn connect_timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "connection timed out")
}
