//! Connections to PostgreSQL on which nobody waits for ever.
//!
//! # Problem
//! A server that is frozen, or whose machine has gone, leaves its connections open and says nothing. `postgres` waits for
//! its answer as long as that takes: it has no time-out for reading, and does not lend its socket to anybody who would
//! close it.
//!
//! # Alternatives
//! - *The server's own time-out for statements.* Takes a server that lives: it is for those who wait for somebody's lock.
//! - *`tcp_user_timeout` and keep-alives.* The kernel answers them, for processes that do not run as well.
//! - *A thread that asks, and an asker who gives up.* Threads and connections are left behind, and each question
//!   takes two switches more.
//!
//! # Choice
//! There is one to whom `postgres` gives its socket: who encrypts it. Ours encrypts nothing, and fails a read for
//! which there is no time left. So that it is asked, the client is told that the server expects TLS from the first byte on.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use postgres::Socket;
use postgres::config::{Config, Host, SslMode, SslNegotiation};
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// When a connection is to give up, if at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    pub(super) fn set(&self, deadline: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets up the client to give its socket to a deadline; false if it does not: it does with TCP, to a host that has a name,
    /// and if there was to be no TLS in earnest, which we lack.
    pub(super) fn prepare(config: &mut Config) -> bool {
        let hosts = config.get_hosts();
        let have_names = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Tcp(_)));
        let is_possible = have_names && config.get_ssl_mode() != SslMode::Require;
        if is_possible {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        }
        is_possible
    }
}

impl MakeTlsConnect<Socket> for Deadline {
    type Stream = Stream;
    type TlsConnect = Deadline;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _name: &str) -> Result<Deadline, Infallible> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Deadline {
    type Stream = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let alarm = Box::pin(sleep(Duration::ZERO));
        ready(Ok(Stream { socket, deadline: self, alarm }))
    }
}

/// A plain socket, reads of which fail when the deadline has passed.
pub(super) struct Stream {
    socket: Socket,
    deadline: Deadline,
    alarm: Pin<Box<Sleep>>,
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if read.is_pending()
            && let Some(deadline) = self.deadline.get()
        {
            self.alarm.as_mut().reset(deadline.into());
            return self.alarm.as_mut().poll(context).map(|()| Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

/// What is asked is short: if the server does not take it, it does not answer either.
impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
