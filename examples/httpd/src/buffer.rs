//! What was received and not yet used.
//!
//! Most connections are idle most of the time, and most requests are short. So a buffer starts at
//! [`INITIAL_BYTES`] and doubles when a read fills it: it comes to fit what this peer sends at
//! once, a peer gets no memory for bytes that it only announces, and between requests no more than
//! [`READ_AHEAD`] is kept.

use std::io::{self, ErrorKind, Read};

/// The size to start with: room for the head that a program sends, or half of a browser's.
const INITIAL_BYTES: usize = 512;

/// How much of what is already there one read takes, at least: a batch of pipelined requests should
/// cost one call. Larger buffers are for messages that do not fit, and only while they are
/// received.
pub(crate) const READ_AHEAD: usize = 16 * 1024;

/// Bytes between the socket and the parser.
///
/// ```text
/// bytes   | used | unread      | room for the next read |
///         0      start         end              bytes.len()
/// ```
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer { bytes: vec![0; INITIAL_BYTES], start: 0, end: 0 }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Marks the first `count` unread bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.unread().len(), "cannot use bytes that have not arrived");
        self.start += count;
    }

    /// Reads once from `source`; 0 is end of file.
    pub(crate) fn fill_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match source.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
            }
        }
    }

    /// Gives back the memory of an uncommonly large message, if nothing is unread.
    pub(crate) fn shrink(&mut self) {
        if self.unread().is_empty() && self.bytes.len() > READ_AHEAD {
            *self = Buffer::new();
        }
    }

    fn make_room(&mut self) {
        let was_full = self.end == self.bytes.len();
        self.move_to_front();
        let no_room = self.end == self.bytes.len();
        if no_room || (was_full && self.bytes.len() < READ_AHEAD) {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    fn move_to_front(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}
