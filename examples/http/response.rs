//! Answers as bytes.
//!
//! They are appended to a buffer rather than sent, so that a batch of pipelined requests is
//! answered with one write, and they are put together from parts that are constants, but for the
//! body and its length.

use std::borrow::Cow;
use std::io::Write;

use crate::request::{Head, Method, Route, Version};

/// A status code and its reason, as they stand in the first line.
#[derive(Clone, Copy)]
pub(crate) struct Status(&'static str);

impl Status {
    pub(crate) const OK: Status = Status("200 OK");
    pub(crate) const BAD_REQUEST: Status = Status("400 Bad Request");
    pub(crate) const NOT_FOUND: Status = Status("404 Not Found");
    pub(crate) const METHOD_NOT_ALLOWED: Status = Status("405 Method Not Allowed");
    pub(crate) const REQUEST_TIMEOUT: Status = Status("408 Request Timeout");
    pub(crate) const CONTENT_TOO_LARGE: Status = Status("413 Content Too Large");
    pub(crate) const HEAD_TOO_LARGE: Status = Status("431 Request Header Fields Too Large");
    pub(crate) const NOT_IMPLEMENTED: Status = Status("501 Not Implemented");
}

/// Asks for the body that the client announced.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const CLOSE: &str = "Connection: close\r\n";
const KEEP_ALIVE: &str = "Connection: keep-alive\r\n";

/// What a resource answers.
struct Answer<'a> {
    status: Status,
    /// Complete lines.
    fields: &'static str,
    body: Cow<'a, [u8]>,
}

impl<'a> Answer<'a> {
    fn to(head: &Head, body: &'a [u8]) -> Answer<'a> {
        match (head.route, head.method) {
            (Route::Root, Method::Get | Method::Head) => {
                Answer::ok("Content-Type: text/plain\r\n", b"Hello, World!".as_slice())
            }
            (Route::Root, _) => Answer::error(Status::METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n"),
            (Route::Echo, Method::Post) => {
                Answer::ok("Content-Type: application/octet-stream\r\n", body)
            }
            (Route::Echo, _) => Answer::error(Status::METHOD_NOT_ALLOWED, "Allow: POST\r\n"),
            (Route::Metrics, Method::Get | Method::Head) => metrics(),
            (Route::Metrics, _) => {
                Answer::error(Status::METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n")
            }
            (Route::Unknown, _) => Answer::error(Status::NOT_FOUND, ""),
        }
    }

    fn ok(fields: &'static str, body: impl Into<Cow<'a, [u8]>>) -> Answer<'a> {
        Answer { status: Status::OK, fields, body: body.into() }
    }

    fn error(status: Status, fields: &'static str) -> Answer<'a> {
        Answer { status, fields, body: Cow::Borrowed(b"") }
    }

    fn append_to(&self, output: &mut Vec<u8>, connection: &str, body: &[u8]) {
        output.extend_from_slice(b"HTTP/1.1 ");
        output.extend_from_slice(self.status.0.as_bytes());
        output.extend_from_slice(b"\r\n");
        output.extend_from_slice(self.fields.as_bytes());
        output.extend_from_slice(connection.as_bytes());
        write!(output, "Content-Length: {}\r\n\r\n", self.body.len())
            .expect("a vector takes all bytes");
        output.extend_from_slice(body);
    }
}

/// The runtime's figures, for a monitoring system that asks for them now and then.
#[cfg(feature = "prometheus")]
fn metrics<'a>() -> Answer<'a> {
    let fields = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    Answer::ok(fields, uthread::prometheus().into_bytes())
}

/// Without the feature that makes the text there is no such resource.
#[cfg(not(feature = "prometheus"))]
fn metrics<'a>() -> Answer<'a> {
    Answer::error(Status::NOT_FOUND, "")
}

/// Appends the answer to a request; `keep_alive` says whether another one may follow.
pub(crate) fn answer(head: &Head, body: &[u8], keep_alive: bool, output: &mut Vec<u8>) {
    let answer = Answer::to(head, body);
    let connection = match (keep_alive, head.version) {
        (false, _) => CLOSE,
        (true, Version::Http10) => KEEP_ALIVE,
        (true, Version::Http11) => "",
    };
    let body: &[u8] = if head.method == Method::Head { b"" } else { &answer.body };
    answer.append_to(output, connection, body);
}

/// Appends the answer to what is no acceptable request, the connection's last one.
pub(crate) fn refuse(status: Status, output: &mut Vec<u8>) {
    Answer::error(status, "").append_to(output, CLOSE, b"");
}
