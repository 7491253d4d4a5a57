//! Accepting connections, living through scarcity, and ending without losing a request.
//!
//! # Problem
//! The end is the hard part. The acceptor is blocked in `accept`, connections are blocked in
//! `read`: some between two requests, where ending costs nothing, some in the midst of one that
//! must still be answered.
//!
//! # Alternatives
//! - *Time-outs that look at a flag.* Every idle connection would wake up several times a second,
//!   for years, to make the last second quick.
//! - *A second descriptor per connection to close it by.* Doubles what is the scarcest resource of
//!   a server.
//! - *Just leave.* Answers are cut off, and the client cannot know whether its request took effect.
//!
//! # Choice
//! `shutdown` wakes whoever is blocked on a socket, so the server keeps a table of the open ones,
//! shared with their threads. A listening socket's `accept` then fails; a connection's `read` first
//! gives what has arrived and then says end of file. Only connections that declare themselves idle
//! are shut down. The others end by themselves after their answer, within [`Limits::drain`].
//!
//! # The race to fear
//! A connection goes idle while the server stops, and neither notices the other. Each first
//! announces itself (`idle`, `stopping`) and then looks at the other's announcement, all `SeqCst`:
//! whichever announcement is second in that order, its author sees the first.
//!
//! # Scarcity
//! At the limit of connections, as without descriptors, the server does not accept. To accept and answer 503 is the
//! alternative; but that takes a thread, which waits until the peer has read it (see `Connection::close`), for the very
//! peers that there shall be none for, and sends clients away that would have waited for some milliseconds. The
//! listener's backlog is a queue that costs the process nothing, and connections that are idle make room (`open`). That
//! the work, not the number of clients, is too much is for the handler to say: to those who are in.
//!
//! Where there is no thread for a connection that has been accepted, it is answered 503 as well as that goes without one.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, Backlog};
use uthread::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::open::{Open, Peer, SWEEP};
use crate::response::Response;
use crate::threads::Threads;

/// How long threads may take to notice that their connection was cut off: a scheduling delay,
/// generously.
const CUT_OFF: Duration = Duration::from_millis(500);

/// How long to leave the kernel alone when it has no descriptor or memory for another connection.
/// Those that wait meanwhile are in the listener's backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The listener and what its connections share.
pub struct Server {
    pub(crate) limits: Limits,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) keep_alive: bool,
    threads: Box<dyn Threads>,
    listener: TcpListener,
    stopping: AtomicBool,
    accepted: AtomicU64,
    served: AtomicU64,
    open: Open,
}

impl Server {
    /// Binds to `addr`; port 0 lets the kernel choose one. Connections wait until [`run`](Server::run).
    ///
    /// # Errors
    ///
    /// The address cannot be had, or a limit is zero under which nothing could be served.
    pub fn bind(
        addr: SocketAddr,
        limits: Limits,
        handler: impl Handler,
        threads: impl Threads,
    ) -> io::Result<Server> {
        let limits = limits.checked()?;
        let listener = TcpListener::bind(addr)?;
        // `std` asks for a backlog of 128; a crowd that comes at once would have to knock again, seconds later. This is
        // as much as the system allows.
        socket::listen(&listener, Backlog::MAXALLOWABLE)?;
        Ok(Server {
            limits,
            handler: Box::new(handler),
            keep_alive: threads.keep_alive(),
            threads: Box::new(threads),
            listener,
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            served: AtomicU64::new(0),
            open: Open::default(),
        })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Requests answered so far on connections that have ended.
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Connections that are open at present.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Serves until [`stop`](Server::stop), and then until the requests in flight are answered, but no longer than
    /// [`Limits::drain`].
    ///
    /// # Blocking
    ///
    /// Parks the green thread; an OS thread blocks.
    pub fn run(self: &Arc<Self>) {
        self.accept_connections();
        if !self.open.wait_for_at_most(0, self.limits.drain) {
            self.open.cut_off();
            self.open.wait_for_at_most(0, CUT_OFF);
        }
    }

    /// Makes [`run`](Server::run) come to an end. May be called on any thread.
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
        // `std` has no `shutdown` for listeners. It fails only if that has been done before.
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        self.open.close_idle();
    }

    fn accept_connections(self: &Arc<Self>) {
        let mut complained = false;
        let mut swept = None;
        while !self.is_stopping() {
            if let Some(limit) = self.limits.connections
                && self.open.count() >= limit
            {
                self.make_room(&mut swept);
                self.open.wait_for_at_most(limit - 1, SWEEP);
                continue;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.start(stream),
                Err(_) if self.is_stopping() => {}
                // The peer gave up while it waited in the backlog.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !complained {
                        // Serving goes on even if nobody reads the complaint.
                        let _ = writeln!(io::stderr(), "cannot accept, will try again: {error}");
                        complained = true;
                    }
                    self.make_room(&mut swept);
                    uthread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Closes connections that have been idle since the last time, if it is time again.
    fn make_room(&self, swept: &mut Option<Instant>) {
        if swept.is_none_or(|last| last.elapsed() >= SWEEP) {
            self.open.sweep();
            *swept = Some(Instant::now());
        }
    }

    fn start(self: &Arc<Self>, stream: TcpStream) {
        let registration = Registration::new(self, stream);
        let peer = Arc::clone(&registration.peer);
        if self.threads.start(Box::new(move || registration.serve())).is_err() {
            // If that fails, the peer has gone before us.
            let _ = turn_away(&peer.stream);
        }
    }

    /// Counts the requests that a connection has answered.
    pub(crate) fn add_served(&self, requests: u64) {
        self.served.fetch_add(requests, Relaxed);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// An entry in the table of open connections, which goes when its thread goes, be it by a panic.
struct Registration {
    server: Arc<Server>,
    number: u64,
    peer: Arc<Peer>,
}

impl Registration {
    fn new(server: &Arc<Server>, stream: TcpStream) -> Registration {
        let number = server.accepted.fetch_add(1, Relaxed);
        let peer = server.open.insert(number, stream);
        Registration { server: Arc::clone(server), number, peer }
    }

    fn serve(&self) {
        Connection::new(&self.server, &self.peer).serve();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.server.open.remove(self.number);
    }
}

/// Answers 503 to a peer for whom there is no thread, as well as that is possible without waiting: it may come to see
/// a reset instead, if its request arrives later.
fn turn_away(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut output = Vec::new();
    Response::unavailable(1).append_last_to(&mut output);
    stream.write_all(&output)?;
    stream.shutdown(Shutdown::Write)?;
    // A request that is here already would reset the connection if it were not read.
    let _ = stream.read(&mut [0; 4096])?;
    Ok(())
}
