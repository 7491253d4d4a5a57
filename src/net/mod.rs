//! TCP with the names, signatures and behaviour of [`std::net`], for green threads.
//!
//! **Problem.** A call that waits for a peer must stop the calling green thread and nothing else,
//! while code written for [`std::net`] compiles and behaves as before.
//!
//! **Alternatives.** Non-blocking sockets and a poller cost two system calls per wait and change
//! what other users of the descriptor see. Types written from scratch would repeat the dozens of
//! `std`'s calls that never block.
//!
//! **Choice.** Each type wraps `std`'s and keeps its descriptor in blocking mode. What cannot block
//! is `std`'s own method. What can is an op on the worker's ring if a green thread calls, and
//! `std`'s own method if an OS thread does, so that a value may be used from both. What `std` lets
//! the kernel decide for a blocking call, non-blocking mode and time-outs, an op must be told; that
//! is kept in `blocking`.
//!
//! # Differences from `std`
//! - Non-blocking mode and time-outs have to be set through these types, or before the descriptor
//!   is converted into one. Set through a bare descriptor later, they hold on OS threads only.
//! - [`UdpSocket`](std::net::UdpSocket) has no counterpart yet.
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//! use uthread::net::{Shutdown, TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = uthread::spawn(move || -> std::io::Result<()> {
//!     let (stream, _peer) = listener.accept()?;
//!     std::io::copy(&mut &stream, &mut &stream)?;
//!     Ok(())
//! });
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! client.shutdown(Shutdown::Write)?;
//! let mut echo = String::new();
//! client.read_to_string(&mut echo)?;
//! assert_eq!(echo, "hello");
//! server.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```

/// The conversions of `std`'s socket types, for `$Socket` with its fields `inner` and `mode`.
macro_rules! descriptor_conversions {
    ($Socket:ident) => {
        impl AsFd for $Socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.inner.as_fd()
            }
        }

        impl AsRawFd for $Socket {
            fn as_raw_fd(&self) -> RawFd {
                self.inner.as_raw_fd()
            }
        }

        impl IntoRawFd for $Socket {
            fn into_raw_fd(self) -> RawFd {
                self.inner.into_raw_fd()
            }
        }

        impl FromRawFd for $Socket {
            unsafe fn from_raw_fd(fd: RawFd) -> Self {
                // SAFETY: the caller gives away a descriptor that it owns.
                Self::from(unsafe { OwnedFd::from_raw_fd(fd) })
            }
        }

        impl From<OwnedFd> for $Socket {
            fn from(fd: OwnedFd) -> Self {
                Self::from(std::net::$Socket::from(fd))
            }
        }

        impl From<$Socket> for OwnedFd {
            fn from(socket: $Socket) -> Self {
                socket.inner.into()
            }
        }

        /// Takes over the socket with its non-blocking mode and time-outs, which are read here.
        impl From<std::net::$Socket> for $Socket {
            fn from(inner: std::net::$Socket) -> Self {
                let mode = BlockingMode::of(inner.as_fd());
                Self { inner, mode }
            }
        }

        /// Gives out the socket with its non-blocking mode and time-outs.
        impl From<$Socket> for std::net::$Socket {
            fn from(socket: $Socket) -> Self {
                socket.inner
            }
        }
    };
}

mod blocking;
mod listener;
mod stream;

use std::io;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
    ToSocketAddrs,
};

pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;

/// Repeats `call` while a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
