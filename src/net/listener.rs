//! [`TcpListener`]: accepting connections.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use super::blocking::{BlockingMode, Parking};
use super::{TcpStream, uninterrupted};
use crate::reactor::op::Request;

/// A TCP socket server, listening for connections: [`std::net::TcpListener`] for green threads.
///
/// The socket is closed when the value is dropped.
///
/// # Examples
/// ```no_run
/// use uthread::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:8080")?;
/// for stream in listener.incoming() {
///     let stream = stream?;
///     uthread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    inner: std::net::TcpListener,
    mode: BlockingMode,
}

/// An iterator that endlessly [`accept`](TcpListener::accept)s connections on a [`TcpListener`].
///
/// It is made by [`TcpListener::incoming`].
#[must_use = "iterators are lazy and do nothing unless consumed"]
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl TcpListener {
    /// Creates a listener bound to `addr`, ready to accept connections.
    ///
    /// Port 0 asks the system for a free one; [`local_addr`](Self::local_addr) tells which. If
    /// `addr` yields several addresses, the first that can be bound is taken.
    ///
    /// # Errors
    /// That of the last address tried; [`InvalidInput`](io::ErrorKind::InvalidInput) if `addr`
    /// yields none.
    ///
    /// # Blocking
    /// Only to look a host name up, as [`TcpStream::connect`].
    ///
    /// # Examples
    /// ```
    /// use uthread::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        let inner = std::net::TcpListener::bind(addr)?;
        Ok(Self { inner, mode: BlockingMode::default() })
    }

    /// The address that this listener is bound to.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// A second handle to the same socket. Either accepts; an option set on one holds for both.
    ///
    /// # Errors
    /// Those of duplicating a descriptor, such as having too many.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        let inner = self.inner.try_clone()?;
        Ok(Self { inner, mode: self.mode.share() })
    }

    /// Waits for a connection, and gives it with the address of its peer.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) in non-blocking mode if no connection is waiting.
    /// After an error such as that of too many open descriptors the listener works on, and the
    /// connection stays in its queue.
    ///
    /// # Blocking
    /// Parks a green thread, blocks an OS thread, until a connection arrives.
    ///
    /// # Cancellation
    /// A listener can come with a receive time-out, if it was converted from a socket that has one.
    /// When it expires, the op is cancelled and waited for; the error is
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), and no connection is lost.
    ///
    /// # Examples
    /// ```
    /// use uthread::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (_stream, peer) = listener.accept()?;
    /// assert_eq!(peer, client.local_addr()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = match self.mode.parking() {
            None => self.inner.accept()?,
            Some(parking) => self.park_for_connection(parking)?,
        };
        Ok((TcpStream::new(stream, self.mode.inherited()), peer))
    }

    fn park_for_connection(
        &self,
        parking: Parking,
    ) -> io::Result<(std::net::TcpStream, SocketAddr)> {
        let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut length = 0;
        let fd = uninterrupted(|| {
            length = size_of_val(&address) as libc::socklen_t;
            let request = Request::Accept {
                fd: self.as_raw_fd(),
                address: address.as_mut_ptr().cast(),
                length: &mut length,
                flags: libc::SOCK_CLOEXEC,
            };
            // SAFETY: `address` and `length` outlive the call; nothing else uses them during it.
            unsafe { self.mode.perform_read(parking, request) }
        })?;
        // SAFETY: the accept made this descriptor, and nobody else knows it yet.
        let stream = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // SAFETY: the accept wrote `length` bytes of an address; what it left is zeroed.
        let address = unsafe { SockaddrStorage::from_raw(address.as_ptr().cast(), Some(length)) };
        let peer = address.as_ref().and_then(internet_address);
        let peer = peer.ok_or(io::ErrorKind::InvalidInput)?;
        Ok((stream.into(), peer))
    }

    /// An iterator over the connections that arrive at this listener.
    ///
    /// It never ends: each step is an [`accept`](Self::accept), with its blocking and its errors.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
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

    /// Sets whether the socket takes IPv6 connections only (`IPV6_V6ONLY`).
    ///
    /// # Errors
    /// Those of `setsockopt`; always, since the socket is bound.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        #[expect(deprecated)] // as here, so there
        self.inner.set_only_v6(only_v6)
    }

    /// Whether the socket takes IPv6 connections only (`IPV6_V6ONLY`).
    ///
    /// # Errors
    /// Those of `getsockopt`.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn only_v6(&self) -> io::Result<bool> {
        #[expect(deprecated)] // as here, so there
        self.inner.only_v6()
    }

    /// Takes the pending error of this socket (`SO_ERROR`), if there is one.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.take_error()
    }

    /// Moves this listener, with all its clones, into or out of non-blocking mode.
    ///
    /// In non-blocking mode [`accept`](Self::accept) never waits, whichever kind of thread calls
    /// it. Accepted streams are in blocking mode all the same.
    ///
    /// # Errors
    /// Those of `ioctl`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)?;
        self.mode.set_nonblocking(nonblocking);
        Ok(())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _peer)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

descriptor_conversions!(TcpListener);

fn internet_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|&v4| v4.into());
    let v6 = || address.as_sockaddr_in6().map(|&v6| v6.into());
    v4().or_else(v6)
}
