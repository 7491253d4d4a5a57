//! A connection as it is on the wire, where nothing is tried again behind one's back.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::{Answer, PATIENCE};

/// Of what arrives. There may be thousands of connections, and no answer of theirs is longer.
const BUFFER: usize = 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
    /// Whether the server has said that it answers no more.
    pub(crate) is_over: bool,
}

/// A `POST` of this body.
pub(crate) fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A `GET`.
pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

impl Wire {
    /// A connection, unless it is refused.
    pub(crate) fn connect(address: &str) -> Option<Wire> {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Some(Wire { reader: BufReader::with_capacity(BUFFER, stream), is_over: false })
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
            // It was in the queue of a listener that has ended meanwhile.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends something. Whoever is answered before it has sent all finds the connection closed, and the answer in it.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_mut().write_all(bytes);
    }

    /// Asks; the answer in full, or none if the server has closed without a word of it.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        self.send(request);
        self.answer()
    }

    /// The next answer; see [`ask`](Self::ask).
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        match self.reader.fill_buf() {
            Ok([]) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no answer: {error}"),
        }
        let status = self.line();
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok());
        let status = status.expect("a status");
        let mut answer =
            Answer { status, retry_after: None, content_type: String::new(), body: Vec::new() };
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            match &*name.to_ascii_lowercase() {
                "content-length" => answer.body.resize(value.parse().unwrap(), 0),
                "content-type" => answer.content_type = value.to_owned(),
                "retry-after" => answer.retry_after = Some(value.to_owned()),
                "connection" => self.is_over = value == "close",
                _ => {}
            }
        }
        self.reader.read_exact(&mut answer.body).expect("the answer is cut off");
        Some(answer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the answer is cut off");
        line.strip_suffix("\r\n").expect("the answer is cut off").to_owned()
    }
}
