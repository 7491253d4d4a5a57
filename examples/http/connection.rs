//! One connection, on its own green thread: receive a request, answer it, and again.
//!
//! # Problem
//! What costs is system calls, clock readings and, with many connections, memory. What is owed to
//! the peer is an answer to each request in order, and what is owed to the others is that no peer
//! holds a thread for ever.
//!
//! # Choice
//! - **Answers are sent when there is nothing left to do but wait.** All reading goes through
//!   [`Connection::receive`] and [`Connection::await_request`], which send first. So the requests
//!   that one read brought are answered by one write, and nothing waits for an answer that waits
//!   for input.
//! - **The clock is read only for requests that arrive in pieces.** The read time-out of the socket
//!   stays at the idle limit. Only when a request turns out to be incomplete it gets a deadline,
//!   which holds for all of it: a time-out per read would let a peer send a byte at a time for
//!   ever.
//! - **Sending has a time-out per write**, which the kernel applies to progress: a slow reader is
//!   not an attacker, one that stopped reading is gone.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};
use std::{io, mem};

use uthread::net::TcpStream;

use crate::buffer::{Buffer, READ_AHEAD};
use crate::chunked::Decoder;
use crate::request::{self, Body, HEAD_LIMIT, Head};
use crate::response::{self, CONTINUE, Status};
use crate::server::{Peer, Server};

/// How many bytes of answers are sent without waiting for more: enough for what one read brings
/// when requests are as short as they can be.
const SEND_AT: usize = 4 * READ_AHEAD;

/// By how much a deadline may be missed.
const TICK: Duration = Duration::from_millis(100);

/// Why no further request is answered.
enum End {
    /// The peer has closed or broken the connection, or left it idle: there is nobody to tell
    /// anything.
    Gone,
    /// What it sent cannot be answered; where the next request starts is unknown.
    Refused(Status),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        End::Refused(status)
    }
}

/// The state of one connection.
pub(crate) struct Connection<'a> {
    server: &'a Server,
    peer: &'a Peer,
    input: Buffer,
    output: Vec<u8>,
    /// When the request being received must be complete; only set once it has turned out not to be.
    deadline: Option<Instant>,
    /// The socket's present read time-out; zero before the first.
    read_timeout: Duration,
    served: u64,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(server: &'a Server, peer: &'a Peer) -> Connection<'a> {
        Connection {
            server,
            peer,
            input: Buffer::new(),
            output: Vec::new(),
            deadline: None,
            read_timeout: Duration::ZERO,
            served: 0,
        }
    }

    /// Answers requests until one side ends the connection.
    pub(crate) fn serve(mut self) {
        match self.answer_requests() {
            Ok(()) => {}
            Err(End::Gone) => return,
            Err(End::Refused(status)) => response::refuse(status, &mut self.output),
        }
        // If that fails, the peer has gone before us.
        let _ = self.close();
    }

    /// Answers requests up to the one that is to be the last.
    fn answer_requests(&mut self) -> Result<(), End> {
        self.stream().set_nodelay(true)?;
        self.stream().set_write_timeout(Some(self.server.limits.request))?;
        while self.answer_request()? {}
        Ok(())
    }

    /// Receives a request and answers it; says whether another one may follow.
    fn answer_request(&mut self) -> Result<bool, End> {
        let head = self.receive_head()?;
        self.input.consume(head.length);
        let keep_alive = match head.body {
            Body::Length(length) => self.answer_plain(&head, length)?,
            Body::Chunked => self.answer_chunked(&head)?,
        };
        self.deadline = None;
        self.served += 1;
        if self.output.len() >= SEND_AT {
            self.send()?;
        }
        Ok(keep_alive)
    }

    fn answer_plain(&mut self, head: &Head, length: usize) -> Result<bool, End> {
        self.receive_body(head, length)?;
        let (body, rest) = self.input.unread().split_at(length);
        let keep_alive = self.keeps_alive(head, rest);
        response::answer(head, body, keep_alive, &mut self.output);
        self.input.consume(length);
        Ok(keep_alive)
    }

    fn answer_chunked(&mut self, head: &Head) -> Result<bool, End> {
        let body = self.receive_chunks(head)?;
        let keep_alive = self.keeps_alive(head, self.input.unread());
        response::answer(head, &body, keep_alive, &mut self.output);
        Ok(keep_alive)
    }

    /// Whether another request may follow. When the server stops, those that are in `rest` may.
    fn keeps_alive(&self, head: &Head, rest: &[u8]) -> bool {
        head.keep_alive && !(rest.is_empty() && self.server.is_stopping())
    }

    fn receive_head(&mut self) -> Result<Head, End> {
        if self.input.unread().is_empty() {
            self.await_request()?;
        }
        let mut parsed = 0;
        loop {
            let unread = self.input.unread();
            // A head is complete at the end of a line: without one, parsing again would be in vain,
            // and it is what makes a head that comes byte by byte expensive.
            let worth_parsing =
                parsed == 0 || unread[parsed..].contains(&b'\n') || unread.len() >= HEAD_LIMIT;
            if worth_parsing && let Some(head) = request::parse(unread)? {
                return Ok(head);
            }
            parsed = unread.len();
            self.receive()?;
        }
    }

    /// Receives until the first `length` bytes of the input are the body.
    fn receive_body(&mut self, head: &Head, length: usize) -> Result<(), End> {
        if length > 0 {
            self.invite_body(head);
        }
        while self.input.unread().len() < length {
            self.receive()?;
        }
        Ok(())
    }

    fn receive_chunks(&mut self, head: &Head) -> Result<Vec<u8>, End> {
        self.invite_body(head);
        let mut body = Vec::new();
        let mut decoder = Decoder::new();
        loop {
            let used = decoder.decode(self.input.unread(), &mut body)?;
            self.input.consume(used);
            if decoder.is_done() {
                return Ok(body);
            }
            self.receive()?;
        }
    }

    /// Tells a client that waits for permission to send its body, unless it has already begun.
    fn invite_body(&mut self, head: &Head) {
        if head.expects_continue && self.input.unread().is_empty() {
            self.output.extend_from_slice(CONTINUE);
        }
    }

    /// Waits for the first bytes of a request.
    fn await_request(&mut self) -> Result<(), End> {
        self.send()?;
        self.shrink_buffers();
        self.peer.enter_idle(self.server);
        let received = self.read(self.server.limits.idle);
        self.peer.leave_idle();
        match received? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    /// Waits for more of a request, until its deadline.
    fn receive(&mut self) -> Result<(), End> {
        self.send()?;
        let limit = self.server.limits.request;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Refused(Status::REQUEST_TIMEOUT));
        }
        match self.read(in_ticks(left)) {
            Ok(0) => Err(End::Gone),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Err(End::Refused(Status::REQUEST_TIMEOUT)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the last answers so that they arrive, and waits for the peer to close its side.
    ///
    /// To drop a socket with input unread, or yet to come, resets the connection, and the reset
    /// makes the peer's kernel discard what the peer has not read (RFC 9112, section 9.6). So what
    /// still comes is read and ignored, for as long as a request may take.
    fn close(&mut self) -> io::Result<()> {
        self.send()?;
        self.stream().shutdown(Shutdown::Write)?;
        self.peer.enter_idle(self.server);
        let deadline = Instant::now() + self.server.limits.request;
        loop {
            self.input.consume(self.input.unread().len());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.read(in_ticks(left))? == 0 {
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream().write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Reads once, for no longer than `timeout`. Setting it is a system call, so it is set when it
    /// changes.
    fn read(&mut self, timeout: Duration) -> io::Result<usize> {
        if mem::replace(&mut self.read_timeout, timeout) != timeout {
            self.stream().set_read_timeout(Some(timeout))?;
        }
        self.input.fill_from(self.stream())
    }

    /// Gives back what an uncommonly large message took: an idle connection should cost little.
    fn shrink_buffers(&mut self) {
        self.input.shrink();
        if self.output.capacity() > READ_AHEAD {
            self.output = Vec::new();
        }
    }

    fn stream(&self) -> &'a TcpStream {
        &self.peer.stream
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.server.add_served(self.served);
    }
}

/// Rounds up to whole ticks, so that the reads of one request seldom differ in their time-out.
fn in_ticks(left: Duration) -> Duration {
    let ticks = left.as_nanos().div_ceil(TICK.as_nanos());
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// A read that timed out reports what a non-blocking one would: that there is nothing yet.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
