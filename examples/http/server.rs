//! Accepting connections, knowing which are open, and ending without losing a request.
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
//! are shut down. The others end by themselves after their answer, within [`DRAIN`].
//!
//! # The race to fear
//! A connection goes idle while the server stops, and neither notices the other. Each first
//! announces itself (`idle`, `stopping`) and then looks at the other's announcement, all `SeqCst`:
//! whichever announcement is second in that order, its author sees the first.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uthread::Thread;
use uthread::net::{TcpListener, TcpStream};

use crate::connection::Connection;

/// How long requests in flight may take once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long threads may take to notice that their connection was cut off: a scheduling delay,
/// generously.
const CUT_OFF: Duration = Duration::from_millis(500);

/// How long to leave the kernel alone when it has no descriptor or memory for another connection.
/// Those that wait meanwhile are in the listener's backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How long a peer may make the server wait.
#[derive(Clone, Copy)]
pub(crate) struct TimeLimits {
    /// For a request to arrive in full.
    pub(crate) request: Duration,
    /// For a request to begin.
    pub(crate) idle: Duration,
}

/// The listener and what its connections share.
pub(crate) struct Server {
    pub(crate) limits: TimeLimits,
    listener: TcpListener,
    stopping: AtomicBool,
    accepted: AtomicU64,
    served: AtomicU64,
    open: Mutex<Open>,
}

/// The connections that have a thread.
#[derive(Default)]
struct Open {
    peers: HashMap<u64, Arc<Peer>>,
    /// Who waits for the table to become empty.
    drainer: Option<Thread>,
}

/// The socket of a connection, as shared by its thread and the server.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Nothing is lost if the socket is shut down for reading now.
    idle: AtomicBool,
}

impl Server {
    pub(crate) fn bind(addr: SocketAddr, limits: TimeLimits) -> io::Result<Server> {
        Ok(Server {
            limits,
            listener: TcpListener::bind(addr)?,
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            served: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Requests answered so far on connections that have ended.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Serves until [`stop`](Server::stop), and then until the requests in flight are answered.
    pub(crate) fn run(self: &Arc<Self>) {
        self.accept_connections();
        self.shut_down_reading(|peer| peer.idle.load(SeqCst));
        if !self.drained_within(DRAIN) {
            self.cut_off();
            self.drained_within(CUT_OFF);
        }
    }

    /// Makes [`run`](Server::run) come to an end. May be called on any thread.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        // `std` has no `shutdown` for listeners. It can fail only for what is not a listening
        // socket.
        let fd = self.listener.as_raw_fd();
        nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both)
            .expect("a listening socket");
    }

    fn accept_connections(self: &Arc<Self>) {
        let mut complained = false;
        while !self.is_stopping() {
            let started = self.listener.accept().and_then(|(stream, _)| self.start(stream));
            match started {
                Ok(()) => {}
                Err(_) if self.is_stopping() => {}
                // The peer gave up while it waited in the backlog.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !complained {
                        // Serving goes on even if nobody reads the complaint.
                        let _ = writeln!(io::stderr(), "cannot accept, will try again: {error}");
                        complained = true;
                    }
                    uthread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn start(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let registration = Registration::new(self, stream);
        uthread::Builder::new().spawn(move || {
            let Registration { server, peer, .. } = &registration;
            Connection::new(server, peer).serve();
        })?;
        Ok(())
    }

    /// Lets the chosen connections read what has arrived and no more.
    fn shut_down_reading(&self, chosen: impl Fn(&Peer) -> bool) {
        for peer in self.open().peers.values().filter(|peer| chosen(peer)) {
            peer.shut_down(Shutdown::Read);
        }
    }

    /// Ends all connections in the midst of whatever they do.
    fn cut_off(&self) {
        for peer in self.open().peers.values() {
            peer.shut_down(Shutdown::Both);
        }
    }

    /// Waits until no connection is open; says whether that came true in time.
    fn drained_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.open().drainer = Some(uthread::current());
        while !self.open().peers.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            uthread::park_timeout(left);
        }
        true
    }

    /// A panic elsewhere cannot leave the table half-changed, so a poisoned lock is as good as any.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the requests that a connection has answered.
    pub(crate) fn add_served(&self, requests: u64) {
        self.served.fetch_add(requests, Relaxed);
    }
}

impl Peer {
    /// Declares that the connection may be ended: what comes next is a read, between requests.
    ///
    /// If the server is stopping, that read gives what has arrived already, or end of file.
    pub(crate) fn enter_idle(&self, server: &Server) {
        self.idle.store(true, SeqCst);
        if server.is_stopping() {
            self.shut_down(Shutdown::Read);
        }
    }

    /// Declares that a request is in flight.
    pub(crate) fn leave_idle(&self) {
        self.idle.store(false, SeqCst);
    }

    /// Shuts down, if the peer has not: an error says that there is nothing left to shut down.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        let _ = self.stream.shutdown(how);
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
        let peer = Arc::new(Peer { stream, idle: AtomicBool::new(false) });
        server.open().peers.insert(number, Arc::clone(&peer));
        Registration { server: Arc::clone(server), number, peer }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.server.open();
        open.peers.remove(&self.number);
        if let (true, Some(drainer)) = (open.peers.is_empty(), &open.drainer) {
            drainer.unpark();
        }
    }
}
