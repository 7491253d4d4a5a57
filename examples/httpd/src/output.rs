//! Answers that are not sent yet.
//!
//! A slow reader is not an attacker, one that stopped reading is gone, and one that takes a byte now and then is no
//! different. So sending has a time-out per 64 KiB. A write that the socket's time-out cuts short reports what it could
//! send; only then the clock is read.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use uthread::net::TcpStream;

use crate::buffer::READ_AHEAD;

/// How many bytes of answers are sent without waiting for more: enough for what one read brings
/// when requests are as short as they can be.
const SEND_AT: usize = 4 * READ_AHEAD;

/// Bytes between the answers and the socket.
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output { bytes: Vec::new() }
    }

    /// Whether there is enough to be sent at once.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= SEND_AT
    }

    /// Sends all there is. `limit`, which is the socket's write time-out too, holds for each 64 KiB.
    pub(crate) fn send(&mut self, stream: &TcpStream, limit: Duration) -> io::Result<()> {
        if !self.bytes.is_empty() {
            send(&self.bytes, stream, limit)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Gives back the memory of uncommonly large answers.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > READ_AHEAD {
            self.bytes = Vec::new();
        }
    }
}

fn send(mut bytes: &[u8], mut stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let mut deadline = None;
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(count) => bytes = &bytes[count..],
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        if now >= *deadline.get_or_insert_with(|| now + patience(bytes.len(), limit)) {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// How long a peer may take to receive so many bytes, after it has received some.
fn patience(bytes: usize, limit: Duration) -> Duration {
    limit.saturating_mul(bytes.div_ceil(SEND_AT).try_into().unwrap_or(u32::MAX))
}
