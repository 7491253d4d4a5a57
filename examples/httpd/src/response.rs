//! Answers as bytes.
//!
//! They are appended to a buffer rather than sent, so that a batch of pipelined requests is
//! answered with one write, and they are put together from parts that are constants, but for the
//! body and its length.

use std::borrow::Cow;
use std::io::Write;

use crate::head::Version;
use crate::status::Status;

/// Asks for the body that the client announced.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// What has become of the request.
    pub status: Status,
    /// What the body is; empty if there is nothing to say.
    pub content_type: &'static str,
    /// To a HEAD request, only its length is told.
    pub body: Cow<'a, [u8]>,
    /// After how many seconds to try again.
    pub retry_after: Option<u32>,
    /// The methods that there are, which [405](Status::METHOD_NOT_ALLOWED) owes the client.
    pub allow: Option<&'static str>,
    /// Whether to end the connection.
    pub close: bool,
    /// Whether to reset the connection and answer nothing, as a server does that breaks down: to try clients with.
    pub reset: bool,
}

impl<'a> Response<'a> {
    /// An answer with a body of any kind.
    pub fn new(
        status: Status,
        content_type: &'static str,
        body: impl Into<Cow<'a, [u8]>>,
    ) -> Response<'a> {
        let body = body.into();
        Response {
            status,
            content_type,
            body,
            retry_after: None,
            allow: None,
            close: false,
            reset: false,
        }
    }

    /// An answer without a body.
    pub fn empty(status: Status) -> Response<'a> {
        Response::new(status, "", b"".as_slice())
    }

    /// An answer in plain text.
    pub fn text(status: Status, body: impl Into<Cow<'a, str>>) -> Response<'a> {
        let body: Cow<'a, [u8]> = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Response::new(status, "text/plain; charset=utf-8", body)
    }

    /// An answer in JSON, already as bytes.
    pub fn json(status: Status, body: impl Into<Cow<'a, [u8]>>) -> Response<'a> {
        Response::new(status, "application/json", body)
    }

    /// 405, with the methods that there are: `GET, HEAD`.
    pub fn not_allowed(allow: &'static str) -> Response<'a> {
        Response { allow: Some(allow), ..Response::empty(Status::METHOD_NOT_ALLOWED) }
    }

    /// 503: not now, but perhaps in so many seconds.
    pub fn unavailable(retry_after: u32) -> Response<'a> {
        let retry_after = Some(retry_after);
        Response { retry_after, ..Response::empty(Status::SERVICE_UNAVAILABLE) }
    }

    /// No answer: the connection is reset.
    pub fn reset() -> Response<'a> {
        Response { reset: true, ..Response::empty(Status::INTERNAL_SERVER_ERROR) }
    }

    /// Ends the connection after this answer.
    #[must_use]
    pub fn closing(mut self) -> Response<'a> {
        self.close = true;
        self
    }

    /// Appends the answer to a request of that version; `keep_alive` says whether another one may follow.
    pub(crate) fn append_to(
        &self,
        output: &mut Vec<u8>,
        version: Version,
        keep_alive: bool,
        with_body: bool,
    ) {
        let mut put = |part: &str| output.extend_from_slice(part.as_bytes());
        put("HTTP/1.1 ");
        put(self.status.line());
        put("\r\n");
        if !self.content_type.is_empty() {
            put("Content-Type: ");
            put(self.content_type);
            put("\r\n");
        }
        if let Some(methods) = self.allow {
            put("Allow: ");
            put(methods);
            put("\r\n");
        }
        put(match (keep_alive, version) {
            (false, _) => "Connection: close\r\n",
            (true, Version::Http10) => "Connection: keep-alive\r\n",
            (true, Version::Http11) => "",
        });
        if let Some(seconds) = self.retry_after {
            write!(output, "Retry-After: {seconds}\r\n").expect("a vector takes all bytes");
        }
        write!(output, "Content-Length: {}\r\n\r\n", self.body.len())
            .expect("a vector takes all bytes");
        if with_body {
            output.extend_from_slice(&self.body);
        }
    }

    /// Appends the answer to what is no acceptable request, the connection's last one.
    pub(crate) fn append_last_to(&self, output: &mut Vec<u8>) {
        self.append_to(output, Version::Http11, false, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(response: &Response<'_>, version: Version, keep_alive: bool, body: bool) -> String {
        let mut output = Vec::new();
        response.append_to(&mut output, version, keep_alive, body);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn an_answer_has_the_fields_it_was_given_and_no_other() {
        let text = Response::text(Status::OK, "hi");
        assert_eq!(
            bytes(&text, Version::Http11, true, true),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert_eq!(
            bytes(&Response::unavailable(3), Version::Http11, false, true),
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 3\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(
            bytes(&Response::not_allowed("GET"), Version::Http10, true, true),
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: keep-alive\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn without_the_body_its_length_is_told() {
        let json = Response::json(Status::CREATED, b"{}");
        assert_eq!(
            bytes(&json, Version::Http11, true, false),
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        );
    }
}
