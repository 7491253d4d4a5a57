//! The client: the protocol is `ureq-proto`'s, which is `ureq` without its sockets; those, and the waits, are here.
//!
//! # Problem
//! Ten thousand requests may wait for the API at the same time. What each has on its stack and in its buffers meanwhile
//! is most of the memory of the process, and a thread's stack keeps the pages that its deepest call has touched.
//!
//! # Alternatives
//! - *`ureq`*. It waits with 12 KiB of frames, 9 of them one function's that holds the question in each of its states and
//!   the fields of the answer, and with two buffers of a fixed size: too small for the head of some answer, or memory
//!   that those who wait have for nothing.
//! - *Smaller stacks.* Stacks are address space; what counts is what is touched.
//!
//! # Choice
//! Three steps, of which only the second waits for long: [`Api::ask`] finds a connection and sends the question,
//! [`Connection::receive`] waits, [`Api::hear`] reads the answer. The first and the last are functions of their own, so that
//! their frames are not on the stack in between.
//!
//! Connections are kept, as many as requests were ever under way: one that is made anew costs the API a thread and us a
//! round trip. The one used last is taken first, and those that were not used for a while are closed.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq_proto::BodyMode;
use ureq_proto::client::state::{RecvBody, RecvResponse};
use ureq_proto::client::{Call, RecvBodyResult, RecvResponseResult, SendRequestResult};
use ureq_proto::http::{Request, Uri, header};

use super::Quote;
use super::connection::Connection;

/// Room for a question; a longer one is sent in pieces.
const QUESTION: usize = 1024;

/// No answer is longer.
const LONGEST_ANSWER: usize = 64 * 1024;

/// How long a connection is kept that nobody uses.
const KEPT: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// It took too long.
    Slow,
    /// It cannot be reached, hung up, or answered with an error or with nonsense.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Slow => f.write_str("the API took too long"),
            Error::Failed(why) => write!(f, "the API failed: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Slow,
            _ => Error::Failed(error.to_string()),
        }
    }
}

impl From<ureq_proto::Error> for Error {
    fn from(error: ureq_proto::Error) -> Error {
        Error::Failed(error.to_string())
    }
}

/// How long the API may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// To take a connection, and then a question.
    pub connect: Duration,
    /// To begin its answer, and then to end it.
    pub answer: Duration,
}

/// A question that was sent.
type Asked = Box<Call<RecvResponse>>;

/// The client of the API.
#[derive(Debug)]
pub struct Api {
    url: String,
    limits: TimeLimits,
    /// With the time of their last use, in its order.
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

impl Api {
    /// A client of the API at this URL, such as `http://127.0.0.1:9000`.
    pub fn new(url: &str, limits: TimeLimits) -> Api {
        Api { url: url.trim_end_matches('/').to_owned(), limits, idle: Mutex::default() }
    }

    /// What it costs to send so many of an item.
    ///
    /// # Errors
    ///
    /// It does not tell, or not in time.
    pub fn quote(&self, item: i64, quantity: u32) -> Result<Quote, Error> {
        let (asked, mut connection) = self.ask(item, quantity)?;
        let deadline = Instant::now() + self.limits.answer;
        connection.receive(deadline)?;
        let (status, body) = self.hear(asked, connection, deadline)?;
        Quote::read(status, &body, item, quantity)
    }

    #[inline(never)]
    fn ask(&self, item: i64, quantity: u32) -> Result<(Asked, Connection), Error> {
        let url = format!("{}{}", self.url, Quote::target(item, quantity));
        let request = Request::get(url).body(());
        let request = request.map_err(|error| Error::Failed(error.to_string()))?;
        let mut connection = match self.idle_connection() {
            Some(connection) => connection,
            None => Connection::open(&authority(request.uri())?, self.limits.connect)?,
        };
        let mut call = Call::new(request)?;
        // The call has a list of its own for fields, the request a table of 0.7 KiB.
        call.header(header::ACCEPT, "application/json")?;
        call.header(header::USER_AGENT, env!("CARGO_PKG_NAME"))?;
        let mut call = call.proceed();
        let mut piece = [0; QUESTION];
        while !call.can_proceed() {
            let length = call.write(&mut piece)?;
            connection.send(&piece[..length])?;
        }
        match call.proceed()? {
            Some(SendRequestResult::RecvResponse(call)) => Ok((Box::new(call), connection)),
            _ => Err(Error::Failed("the question has no end".to_owned())),
        }
    }

    /// Reads the answer that has begun to come: its status and its body.
    #[inline(never)]
    fn hear(
        &self,
        mut asked: Asked,
        mut connection: Connection,
        deadline: Instant,
    ) -> Result<(u16, Vec<u8>), Error> {
        let status = loop {
            let (used, answer) = asked.try_response(connection.unread(), false)?;
            connection.consume(used);
            match answer {
                Some(answer) => break answer.status().as_u16(),
                None if used > 0 => {}
                None => connection.receive(deadline)?,
            }
        };
        let mut body = Vec::new();
        let must_close = match asked.proceed() {
            Some(RecvResponseResult::RecvBody(call)) => {
                self.hear_body(call, &mut connection, &mut body)?
            }
            Some(RecvResponseResult::Cleanup(call)) => call.must_close_connection(),
            Some(RecvResponseResult::Redirect(_)) | None => true,
        };
        if !must_close && connection.unread().is_empty() {
            self.keep(connection);
        }
        Ok((status, body))
    }

    /// Reads the body; says whether the connection is of no further use.
    fn hear_body(
        &self,
        mut call: Call<RecvBody>,
        connection: &mut Connection,
        body: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let deadline = Instant::now() + self.limits.answer;
        let ends_with_connection = call.body_mode() == BodyMode::CloseDelimited;
        let mut piece = [0; 1024];
        loop {
            let (used, length) = call.read(connection.unread(), &mut piece)?;
            connection.consume(used);
            body.extend_from_slice(&piece[..length]);
            if body.len() > LONGEST_ANSWER {
                return Err(Error::Failed("its answer is too long".to_owned()));
            }
            if used > 0 {
                continue;
            }
            if call.can_proceed() && !ends_with_connection {
                break;
            }
            match connection.receive(deadline) {
                Err(error) if ends_with_connection && error.kind() == ErrorKind::UnexpectedEof => {
                    break;
                }
                received => received?,
            }
        }
        Ok(match call.proceed() {
            Some(RecvBodyResult::Cleanup(call)) => call.must_close_connection(),
            Some(RecvBodyResult::Redirect(_)) | None => true,
        })
    }

    /// The one used last of those that live.
    fn idle_connection(&self) -> Option<Connection> {
        // Closing is not to be done under the lock, so each is taken out first.
        while let Some((_, connection)) = self.with_idle(VecDeque::pop_back) {
            if connection.is_silent() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let now = Instant::now();
        let too_old = self.with_idle(|idle| {
            idle.push_back((now, connection));
            idle.pop_front_if(|(used, _)| now.saturating_duration_since(*used) > KEPT)
        });
        drop(too_old);
    }

    /// Connections are put in and taken out whole.
    fn with_idle<T>(&self, act: impl FnOnce(&mut VecDeque<(Instant, Connection)>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Host and port.
fn authority(uri: &Uri) -> Result<String, Error> {
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        _ => Err(Error::Failed(format!("not the URL of an API: {uri}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::api::QuoteAnswer;

    /// Longer than anything takes here, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(60);
    const LIMITS: TimeLimits = TimeLimits { connect: PATIENCE, answer: PATIENCE };

    /// Reads a question's head.
    fn question(stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.is_empty()), "it has an end");
    }

    /// What becomes of a question on an API that says this, a piece at a time, and hangs up.
    fn answered(pieces: &[&[u8]]) -> Result<Quote, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Api::new(&format!("http://{}/", listener.local_addr().unwrap()), LIMITS);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                question(&stream);
                for piece in pieces {
                    stream.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            api.quote(7, 2)
        })
    }

    fn body() -> Vec<u8> {
        serde_json::to_vec(&QuoteAnswer::to(7, 2)).unwrap()
    }

    #[test]
    fn an_answer_is_understood_however_its_end_is_told_and_in_whatever_pieces() {
        let (body, length) = (body(), body().len());
        let sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answered(&[&sized, &body]).unwrap();
        answered(&[&sized[..20], &sized[20..], &body[..9], &body[9..]]).unwrap();
        answered(&[b"HTTP/1.1 200 OK\r\n\r\n", &body[..9], &body[9..]]).unwrap();
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let size = format!("{length:x}\r\n").into_bytes();
        answered(&[chunked, &size, &body, b"\r\n0\r\n", b"\r\n"]).unwrap();
        let long = format!("X-Long: {}\r\n", "x".repeat(20_000)).into_bytes();
        answered(&[&sized[..17], &long, &sized[17..], &body]).unwrap();
        answered(&[b"HTTP/1.1 103 Early Hints\r\n\r\n", &sized, &body]).unwrap();
    }

    #[test]
    fn half_an_answer_none_and_too_much_of_one_are_failures() {
        let failure = |pieces: &[&[u8]]| match answered(pieces).unwrap_err() {
            Error::Failed(why) => why,
            Error::Slow => panic!("it hung up"),
        };
        failure(&[]);
        failure(&[b"HTTP/1.1 200 OK\r\nConte"]);
        failure(&[b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n", b"{"]);
        failure(&[b"no HTTP\r\n\r\n"]);
        assert!(failure(&[b"HTTP/1.1 204 No Content\r\n\r\n"]).contains("204"));
        let long = vec![b' '; LONGEST_ANSWER + 1];
        assert!(failure(&[b"HTTP/1.1 200 OK\r\n\r\n", &long]).contains("too long"));
        let long = vec![b'x'; 70_000];
        failure(&[b"HTTP/1.1 200 OK\r\nX-Long: ", &long]);
    }

    #[test]
    fn an_api_that_says_nothing_is_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = TimeLimits { answer: Duration::from_millis(100), ..LIMITS };
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()), limits);
        let began = Instant::now();
        assert!(matches!(api.quote(7, 2), Err(Error::Slow)));
        assert!(began.elapsed() >= limits.answer);
    }

    #[test]
    fn a_connection_is_used_again_unless_it_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()), LIMITS);
        let body = body();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    let (mut stream, _) = listener.accept().unwrap();
                    for _ in 0..2 {
                        question(&stream);
                        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
                    }
                }
            });
            for number in 0..4 {
                let is_silent = |idle: &mut VecDeque<(_, Connection)>| idle[0].1.is_silent();
                // The end of the first connection has to arrive.
                while number == 2 && api.with_idle(is_silent) {
                    std::thread::yield_now();
                }
                api.quote(7, 2).unwrap();
            }
        });
        assert_eq!(api.with_idle(|idle| idle.len()), 1);
    }
}
