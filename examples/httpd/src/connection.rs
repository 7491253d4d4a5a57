//! One connection, on a thread of its own: receive a request, answer it, and again.
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

use std::io::ErrorKind;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use std::{io, mem};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use uthread::net::TcpStream;

use crate::buffer::Buffer;
use crate::chunked::Decoder;
use crate::head::{self, Body, Head};
use crate::open::Peer;
use crate::output::Output;
use crate::response::{CONTINUE, Response};
use crate::server::Server;
use crate::status::Status;

/// How long to wait for a peer to close its side while others wait for the thread.
const LINGER_IN_TURN: Duration = Duration::from_millis(100);

/// By how much a deadline may be missed.
const TICK: Duration = Duration::from_millis(100);

/// Why no further request is answered.
enum End {
    /// The peer has closed or broken the connection, or left it idle: there is nobody to tell
    /// anything.
    Gone,
    /// What it sent cannot be answered; where the next request starts is unknown.
    Refused(Status),
    /// The handler wants the connection broken.
    Reset,
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
    output: Output,
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
            output: Output::new(),
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
            Err(End::Reset) => {
                // With no time to linger, closing is a reset. If that fails, it is none.
                let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                let _ = setsockopt(self.stream(), Linger, &at_once);
                return;
            }
            Err(End::Refused(status)) => {
                Response::empty(status).append_last_to(&mut self.output.bytes)
            }
        }
        // If that fails, the peer has gone before us.
        let _ = self.close();
    }

    /// Answers requests up to the one that is to be the last.
    fn answer_requests(&mut self) -> Result<(), End> {
        self.stream().set_nodelay(true)?;
        self.stream().set_write_timeout(Some(self.server.limits.write))?;
        while self.answer_request()? {}
        Ok(())
    }

    /// Receives a request and answers it; says whether another one may follow.
    fn answer_request(&mut self) -> Result<bool, End> {
        let head = self.receive_head()?;
        let keep_alive = match head.body {
            Body::Length(length) => self.answer_plain(&head, length)?,
            Body::Chunked => self.answer_chunked(&head)?,
        };
        self.deadline = None;
        self.served += 1;
        if self.output.is_full() {
            self.send()?;
        }
        Ok(keep_alive)
    }

    fn answer_plain(&mut self, head: &Head, length: usize) -> Result<bool, End> {
        self.receive_body(head, length)?;
        let (message, rest) = self.input.unread().split_at(head.length + length);
        let keep_alive = answer(self.server, head, message, rest, &mut self.output.bytes)?;
        self.input.consume(head.length + length);
        Ok(keep_alive)
    }

    fn answer_chunked(&mut self, head: &Head) -> Result<bool, End> {
        let message = self.receive_chunks(head)?;
        answer(self.server, head, &message, self.input.unread(), &mut self.output.bytes)
    }

    fn receive_head(&mut self) -> Result<Head, End> {
        if self.input.unread().is_empty() {
            self.await_request()?;
        }
        let mut parsed = 0;
        loop {
            let unread = self.input.unread();
            let limits = &self.server.limits;
            // A head is complete at the end of a line: without one, parsing again would be in vain,
            // and it is what makes a head that comes byte by byte expensive.
            let worth_parsing =
                parsed == 0 || unread[parsed..].contains(&b'\n') || unread.len() >= limits.head;
            if worth_parsing && let Some(head) = head::parse(unread, limits)? {
                return Ok(head);
            }
            parsed = unread.len();
            self.receive()?;
        }
    }

    /// Receives until the input begins with the head and `length` bytes of body.
    fn receive_body(&mut self, head: &Head, length: usize) -> Result<(), End> {
        if length > 0 && self.input.unread().len() == head.length {
            self.invite_body(head);
        }
        while self.input.unread().len() - head.length < length {
            self.receive()?;
        }
        Ok(())
    }

    /// Receives all chunks; returns the message as it would be without them, the head before the body.
    fn receive_chunks(&mut self, head: &Head) -> Result<Vec<u8>, End> {
        let mut message = self.input.unread()[..head.length].to_vec();
        self.input.consume(head.length);
        if self.input.unread().is_empty() {
            self.invite_body(head);
        }
        let mut decoder = Decoder::new(&self.server.limits);
        loop {
            let used = decoder.decode(self.input.unread(), &mut message)?;
            self.input.consume(used);
            if decoder.is_done() {
                return Ok(message);
            }
            self.receive()?;
        }
    }

    /// Tells a client that may wait for permission to send its body: it has not begun yet.
    fn invite_body(&mut self, head: &Head) {
        if head.expects_continue {
            self.output.bytes.extend_from_slice(CONTINUE);
        }
    }

    /// Waits for the first bytes of a request.
    fn await_request(&mut self) -> Result<(), End> {
        self.send()?;
        self.shrink_buffers();
        self.peer.enter_idle(|| self.server.is_stopping());
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
    /// still comes is read and ignored, for as long as a request may take, unless others wait for the
    /// thread.
    fn close(&mut self) -> io::Result<()> {
        self.send()?;
        self.stream().shutdown(Shutdown::Write)?;
        self.peer.enter_idle(|| self.server.is_stopping());
        let limit = match (self.server.limits.request, self.server.keep_alive) {
            (limit, true) => limit,
            (limit, false) => limit.min(LINGER_IN_TURN),
        };
        let deadline = Instant::now() + limit;
        loop {
            self.input.consume(self.input.unread().len());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.read(in_ticks(left))? == 0 {
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.output.send(self.stream(), self.server.limits.write)
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
        self.output.shrink();
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

/// Has the handler answer a message, which is a head and its body; says whether another one may follow. When the server
/// stops, those that are in `rest` may.
fn answer(
    server: &Server,
    head: &Head,
    message: &[u8],
    rest: &[u8],
    output: &mut Vec<u8>,
) -> Result<bool, End> {
    let request = head.request(message);
    // The panic has been reported by its hook. What it left half-done is the handler's own, and locks tell.
    let response = catch_unwind(AssertUnwindSafe(|| server.handler.handle(&request)))
        .unwrap_or_else(|_| Response::empty(Status::INTERNAL_SERVER_ERROR).closing());
    if response.reset {
        return Err(End::Reset);
    }
    let may_stay = head.keep_alive && server.keep_alive && !response.close;
    let keep_alive = may_stay && !(rest.is_empty() && server.is_stopping());
    response.append_to(output, head.version, keep_alive, request.method != "HEAD");
    Ok(keep_alive)
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
