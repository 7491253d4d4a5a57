//! What a peer may take: memory, time, connections.

use std::io;
use std::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How much of the server a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest body of a request in bytes; beyond, the answer is 413.
    pub body: usize,
    /// The longest head of a request in bytes; beyond, the answer is 431. So it is for more than 64 fields.
    pub head: usize,
    /// For a request to arrive in full, from the time that it is found to be incomplete; beyond, the answer is 408.
    pub request: Duration,
    /// For a request to begin; beyond, the connection is closed without a word.
    pub idle: Duration,
    /// For a peer to take the next 64 KiB of its answers; beyond, the connection is cut.
    pub write: Duration,
    /// For requests under way to be answered once the server stops; beyond, their connections are cut.
    pub drain: Duration,
    /// The most connections that are open at a time; others wait until the server accepts them. Without a limit, the
    /// process's limit on descriptors is one.
    pub connections: Option<usize>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 1024 * 1024,
            head: 16 * 1024,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            connections: None,
        }
    }
}

impl Limits {
    /// Refuses limits under which nothing could be served, and takes times that are meant as "for ever" for a year, so
    /// that the clock can be added to them.
    pub(crate) fn checked(mut self) -> io::Result<Limits> {
        let none = [self.request, self.idle, self.write].iter().any(Duration::is_zero);
        if none || self.head == 0 || self.connections == Some(0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a limit is zero"));
        }
        for time in [&mut self.request, &mut self.idle, &mut self.write, &mut self.drain] {
            *time = YEAR.min(*time);
        }
        Ok(self)
    }
}
