//! The head of a request: what the server acts on, and where the rest is.
//!
//! # Problem
//! Where a body ends is said in four ways that can contradict each other. If a proxy believes one
//! and the server another, the end of one client's body becomes the start of the next client's
//! request ("request smuggling").
//!
//! # Choice
//! One reading or none (RFC 9112, sections 6.1 and 6.3): a head that says it twice, in both ways,
//! or in a way that is not exactly the grammar's is refused, and the connection with it, since
//! nobody knows where the next request would start. The parser already refuses folded fields and
//! spaces before the colon.
//!
//! Of what only handlers want to know, the places are kept rather than copies: the bytes of the head
//! stay where they are until the request is answered.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{Error, Header};

use crate::limits::Limits;
use crate::request::Request;
use crate::status::Status;

/// The most fields a head may have. They take 32 bytes each of the stack while it is parsed.
const FIELDS_LIMIT: usize = 64;

/// What the head of a request says. It borrows nothing, so its bytes can move when the body comes.
pub(crate) struct Head {
    /// Bytes that the head takes.
    pub(crate) length: usize,
    method: Range<usize>,
    target: Range<usize>,
    /// Where the fields begin; they end with the head.
    fields: usize,
    pub(crate) body: Body,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// How the body is delimited.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    Length(usize),
    Chunked,
}

/// Parses the head that `input` begins with. `None` if it is not complete yet.
///
/// Not inlined, so that a connection does not carry the fields on its stack while it waits.
#[inline(never)]
pub(crate) fn parse(input: &[u8], limits: &Limits) -> Result<Option<Head>, Status> {
    let input = &input[..input.len().min(limits.head)];
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_LIMIT];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Complete(length)) => {
            Head::new(&input[..length], &request, limits.body).map(Some)
        }
        Ok(httparse::Status::Partial) if input.len() < limits.head => Ok(None),
        Ok(httparse::Status::Partial) | Err(Error::TooManyHeaders) => Err(Status::HEAD_TOO_LARGE),
        Err(_) => Err(Status::BAD_REQUEST),
    }
}

impl Head {
    fn new(
        bytes: &[u8],
        request: &httparse::Request<'_, '_>,
        body_limit: usize,
    ) -> Result<Head, Status> {
        let version = match request.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        let fields = Fields::read(request.headers)?;
        fields.check_host(version)?;
        let first_field = request.headers.first().map(|field| place(field.name, bytes).start);
        Ok(Head {
            length: bytes.len(),
            method: place(request.method.unwrap_or_default(), bytes),
            target: place(request.path.unwrap_or_default(), bytes),
            fields: first_field.unwrap_or(bytes.len()),
            body: fields.body(version, body_limit)?,
            version,
            keep_alive: fields.keep_alive(version),
            expects_continue: fields.expects_continue && version == Version::Http11,
        })
    }

    /// The request of this head and its body, which `message` has behind it.
    pub(crate) fn request<'a>(&self, message: &'a [u8]) -> Request<'a> {
        let (head, body) = message.split_at(self.length);
        // The parser has found both to be text.
        let text = |place: &Range<usize>| str::from_utf8(&head[place.clone()]).unwrap_or_default();
        Request::new(text(&self.method), text(&self.target), &head[self.fields..], body)
    }
}

/// Where in `bytes` that part of it is. For one that is not, which the parser has no reason to give, nowhere.
fn place(part: &str, bytes: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    if start < bytes.len() { start..start + part.len() } else { 0..0 }
}

/// The fields of a head that decide something.
#[derive(Default)]
struct Fields {
    hosts: usize,
    content_length: Option<usize>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn read(headers: &[Header<'_>]) -> Result<Fields, Status> {
        let mut fields = Fields::default();
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("Host") {
                fields.hosts += 1;
            } else if name.eq_ignore_ascii_case("Content-Length") {
                fields.add_content_length(value)?;
            } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
                fields.add_transfer_encoding(value)?;
            } else if name.eq_ignore_ascii_case("Connection") {
                fields.add_connection_options(value);
            } else if name.eq_ignore_ascii_case("Expect") {
                fields.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Ok(fields)
    }

    /// The grammar is digits only, and a second length is refused even if it is the same.
    fn add_content_length(&mut self, value: &[u8]) -> Result<(), Status> {
        let digits = str::from_utf8(value).map_err(|_| Status::BAD_REQUEST)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || self.content_length.is_some() {
            return Err(Status::BAD_REQUEST);
        }
        // Digits fail to be a number only by being too many: a length beyond any limit.
        self.content_length = Some(digits.parse().unwrap_or(usize::MAX));
        Ok(())
    }

    /// `chunked` is the one coding that is known. Where it is not the last one, not even the body's
    /// end is.
    fn add_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Status> {
        let last = list(value).next_back().unwrap_or_default();
        if self.chunked || !last.eq_ignore_ascii_case(b"chunked") {
            return Err(Status::BAD_REQUEST);
        }
        if list(value).count() > 1 {
            return Err(Status::NOT_IMPLEMENTED);
        }
        self.chunked = true;
        Ok(())
    }

    fn add_connection_options(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// A request names its host once (RFC 9112, section 3.2), if its version knows the field.
    fn check_host(&self, version: Version) -> Result<(), Status> {
        match (version, self.hosts) {
            (_, 1) | (Version::Http10, 0) => Ok(()),
            _ => Err(Status::BAD_REQUEST),
        }
    }

    fn body(&self, version: Version, limit: usize) -> Result<Body, Status> {
        match (self.chunked, self.content_length) {
            (false, length) if length.unwrap_or(0) > limit => Err(Status::CONTENT_TOO_LARGE),
            (false, length) => Ok(Body::Length(length.unwrap_or(0))),
            // HTTP/1.0 has no transfer codings: whoever sends one may have passed it on without
            // knowing it.
            (true, None) if version == Version::Http11 => Ok(Body::Chunked),
            (true, _) => Err(Status::BAD_REQUEST),
        }
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (self.keep_alive || version == Version::Http11)
    }
}

/// The members of a comma-separated list.
fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}
