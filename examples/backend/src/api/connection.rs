//! A connection of the client: memory for what is received comes with the bytes, and goes with them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Room to begin with for what is received: most answers fit.
const RECEIVED: usize = 512;

/// No more than that is received before some of it is used: no head is longer.
const MOST_RECEIVED: usize = 64 * 1024;

/// By how much a deadline may be missed.
const TICK: Duration = Duration::from_millis(100);

/// A connection, and what was received on it and not used.
///
/// ```text
/// bytes   | unread      | room for the next read |
///         0             end              bytes.len()
/// ```
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The socket's present one: setting it is a system call.
    read_timeout: Duration,
    bytes: Vec<u8>,
    end: usize,
}

impl Connection {
    /// Connects to the first address of `host:port` that answers. Each has its share of the time.
    pub(super) fn open(authority: &str, limit: Duration) -> io::Result<Connection> {
        let addrs: Vec<_> = authority.to_socket_addrs()?.collect();
        let share = limit / addrs.len().max(1) as u32;
        let mut failure = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for addr in addrs {
            match TcpStream::connect_timeout(&addr, share) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(limit))?;
                    let (read_timeout, bytes) = (Duration::ZERO, Vec::new());
                    return Ok(Connection { stream, read_timeout, bytes, end: 0 });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Marks the first `count` unread bytes as used.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.end, 0);
        self.end -= count;
        if self.end == 0 {
            // An idle connection needs none.
            self.bytes = Vec::new();
        }
    }

    /// Waits for more.
    ///
    /// # Errors
    ///
    /// The socket's; [`ErrorKind::UnexpectedEof`] if the peer has hung up, [`ErrorKind::TimedOut`] at the deadline, and
    /// an error if there is too much already.
    pub(super) fn receive(&mut self, deadline: Instant) -> io::Result<()> {
        if self.end == MOST_RECEIVED {
            return Err(io::Error::new(ErrorKind::InvalidData, "its head is too long"));
        }
        if self.end == self.bytes.len() {
            self.bytes.resize((2 * self.end).max(RECEIVED), 0);
        }
        loop {
            self.set_read_timeout(deadline)?;
            match self.stream.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
            }
        }
    }

    /// In whole ticks, so that it seldom differs from the last one.
    fn set_read_timeout(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let ticks = left.as_nanos().div_ceil(TICK.as_nanos());
        let timeout = TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        if self.read_timeout != timeout {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// Whether it lives: one that has something to say that nobody asked for says its end, or nonsense.
    pub(super) fn is_silent(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }
}
