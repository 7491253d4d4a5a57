//! The body sent in chunks (RFC 9112, section 7.1).
//!
//! ```text
//! 5;extension CRLF          size in hexadecimal digits, extensions ignored
//! hello CRLF                data
//! 0 CRLF                    the last chunk has no data
//! Trailer: ignored CRLF
//! CRLF
//! ```
//!
//! `httparse::parse_chunk_size` reads the number, but takes no number for zero and anything for an
//! extension, line feeds included; parsers that differ there can be made to see different messages
//! in the same bytes. So a line is first delimited strictly, by the only CRLF and no other control
//! character, and then read.

use crate::limits::Limits;
use crate::status::Status;

/// The longest line that is accepted, extensions included.
const LINE_LIMIT: usize = 4096;

const CRLF: &[u8] = b"\r\n";

/// What comes next in the input.
enum Next {
    Size,
    Data { left: usize },
    DataEnd,
    Trailers { left: usize },
    Nothing,
}

/// A decoder that takes its input in any pieces.
pub(crate) struct Decoder {
    next: Next,
    /// The bytes that chunks still may have.
    body: usize,
    /// The bytes that the trailer section may have, which is a head's second half.
    trailers: usize,
}

impl Decoder {
    pub(crate) fn new(limits: &Limits) -> Decoder {
        Decoder { next: Next::Size, body: limits.body, trailers: limits.head }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    /// Appends to `body` the data that `input` holds, and returns how many bytes of `input` were
    /// used. The others are the start of a line, or what follows the message.
    pub(crate) fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Status> {
        let mut rest = input;
        while !self.is_done() {
            let Some(used) = self.step(rest, body)? else {
                break;
            };
            rest = &rest[used..];
        }
        Ok(input.len() - rest.len())
    }

    /// Takes one line or one stretch of data. `None` if `input` holds neither.
    fn step(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Status> {
        match self.next {
            Next::Size => self.size(input),
            Next::Data { left } => Ok(self.data(input, left, body)),
            Next::DataEnd => self.data_end(input),
            Next::Trailers { left } => self.trailer(input, left),
            Next::Nothing => Ok(None),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Option<usize>, Status> {
        let Some(line) = first_line(input)? else {
            return Ok(None);
        };
        let size = chunk_size(line)?;
        self.next = match usize::try_from(size) {
            Ok(0) => Next::Trailers { left: self.trailers },
            Ok(left) if left <= self.body => Next::Data { left },
            _ => return Err(Status::CONTENT_TOO_LARGE),
        };
        Ok(Some(line.len()))
    }

    fn data(&mut self, input: &[u8], left: usize, body: &mut Vec<u8>) -> Option<usize> {
        let data = &input[..left.min(input.len())];
        body.extend_from_slice(data);
        self.body -= data.len();
        self.next = match left - data.len() {
            0 => Next::DataEnd,
            left => Next::Data { left },
        };
        (!data.is_empty()).then_some(data.len())
    }

    fn data_end(&mut self, input: &[u8]) -> Result<Option<usize>, Status> {
        if input.starts_with(CRLF) {
            self.next = Next::Size;
            Ok(Some(CRLF.len()))
        } else if CRLF.starts_with(input) {
            Ok(None)
        } else {
            Err(Status::BAD_REQUEST)
        }
    }

    fn trailer(&mut self, input: &[u8], left: usize) -> Result<Option<usize>, Status> {
        let Some(line) = first_line(input)? else {
            return Ok(None);
        };
        self.next = match left.checked_sub(line.len()) {
            _ if line == CRLF => Next::Nothing,
            Some(left) => Next::Trailers { left },
            None => return Err(Status::HEAD_TOO_LARGE),
        };
        Ok(Some(line.len()))
    }
}

/// The line that `input` begins with, with its CRLF. `None` if it is not complete yet.
fn first_line(input: &[u8]) -> Result<Option<&[u8]>, Status> {
    let window = &input[..input.len().min(LINE_LIMIT)];
    let Some(feed) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() < LINE_LIMIT { Ok(None) } else { Err(Status::BAD_REQUEST) };
    };
    let line = &window[..=feed];
    match line.strip_suffix(CRLF) {
        Some(text) if !text.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') => {
            Ok(Some(line))
        }
        _ => Err(Status::BAD_REQUEST),
    }
}

/// The number that `line` begins with.
fn chunk_size(line: &[u8]) -> Result<u64, Status> {
    if !line[0].is_ascii_hexdigit() {
        return Err(Status::BAD_REQUEST);
    }
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((_, size))) => Ok(size),
        Ok(httparse::Status::Partial) | Err(_) => Err(Status::BAD_REQUEST),
    }
}
