//! Connections.
//!
//! An OS thread accepts; each client has another, which reads a line, answers it, and so on. So a client that does
//! not read its answer keeps nobody but itself, and not for long. What a client can make the process spend is bounded:
//! there are [`MOST_CLIENTS`], lines are short ([`LONGEST_REQUEST`]), answers have at most
//! [`MOST_ROWS`](super::protocol::MOST_ROWS) threads, one snapshot is made at a time.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, shutdown};

use super::protocol::{Answer, LONGEST_REQUEST, Request};
use super::snapshot::{Inspector, View};
use super::socket::SocketFile;
use crate::worker::Runtime;

/// Clients at a time.
const MOST_CLIENTS: usize = 8;
/// How long a client may be silent between two requests.
const IDLE: Duration = Duration::from_secs(600);
/// How long a request may take to arrive, from its first byte, and an answer to leave.
const TRANSFER: Duration = Duration::from_secs(5);
/// Before it is tried again to accept where descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a runtime until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    listener: UnixListener,
    _file: SocketFile,
    inspector: Inspector,
    ending: AtomicBool,
    clients: Mutex<HashMap<u64, Arc<UnixStream>>>,
}

impl Server {
    /// # Errors
    ///
    /// There can be no more OS threads.
    pub(super) fn start(
        listener: UnixListener,
        file: SocketFile,
        runtime: Arc<Runtime>,
    ) -> io::Result<Server> {
        let name = format!("{}-inspect", runtime.name());
        let shared = Arc::new(Shared {
            listener,
            _file: file,
            inspector: Inspector::new(runtime),
            ending: AtomicBool::new(false),
            clients: Mutex::default(),
        });
        let this = shared.clone();
        let acceptor = thread::Builder::new()
            .name(name)
            .spawn(move || thread::scope(|scope| this.accept(scope)))?;
        Ok(Server { shared, acceptor: Some(acceptor) })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.shared._file).finish()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Ends the wait in accept. Neither can fail, for both are sockets; a client's may be gone.
        let _ = shutdown(self.shared.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        for client in self.shared.clients().values() {
            let _ = client.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            // A panic is a bug of this crate, told on stderr by its hook.
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<UnixStream>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// The acceptor's life.
    fn accept<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for number in 0.. {
            let client = match self.listener.accept() {
                _ if self.is_ending() => return,
                Ok((client, _)) => Arc::new(client),
                Err(_) => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            if let Err(reason) = self.admit(scope, number, &client) {
                let answer = Answer::Error { message: reason };
                // Whoever is not there to read it needs no reason.
                let _ = Client::new(&client).answer(&answer);
            }
        }
    }

    /// Serves a client, if there is room, from now on.
    fn admit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: u64,
        client: &Arc<UnixStream>,
    ) -> Result<(), String> {
        let mut clients = self.clients();
        if clients.len() >= MOST_CLIENTS {
            return Err(format!("there are {MOST_CLIENTS} clients already; end one of them"));
        }
        if self.is_ending() {
            return Err("the runtime ends".to_owned());
        }
        let stream = client.clone();
        let serve = move || {
            // A panic is a bug of this crate, told on stderr by its hook; the others are served on.
            let _ = catch_unwind(AssertUnwindSafe(|| self.serve(&stream)));
            self.clients().remove(&number);
        };
        let name = thread::current().name().unwrap_or_default().to_owned();
        let started = thread::Builder::new().name(name).spawn_scoped(scope, serve);
        started.map_err(|e| format!("cannot start a thread for this client: {e}"))?;
        clients.insert(number, client.clone());
        Ok(())
    }

    /// Answers a client's requests until it goes, or is sent away.
    fn serve(&self, stream: &UnixStream) {
        let mut client = Client::new(stream);
        let mut view = View::default();
        loop {
            let line = match client.read_line() {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(e) => {
                    let _ = client.answer(&Answer::Error { message: e.to_string() });
                    return;
                }
            };
            let (answer, understood) = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => (self.inspector.answer(request, &mut view), true),
                Err(e) => (Answer::Error { message: format!("this is no request: {e}") }, false),
            };
            if client.answer(&answer).is_err() || !understood {
                return;
            }
        }
    }
}

/// A connection, from this side.
struct Client<'a> {
    stream: &'a UnixStream,
    /// What was received and is not used yet.
    received: Vec<u8>,
}

impl Client<'_> {
    fn new(stream: &UnixStream) -> Client<'_> {
        Client { stream, received: Vec::new() }
    }

    /// The next line, without its end; none if the client is gone, or silent for too long.
    ///
    /// # Errors
    ///
    /// It is too long, or takes too long.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut seen = 0;
        let mut deadline = None;
        loop {
            if let Some(end) = self.received[seen..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(seen + end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(Some(line));
            }
            seen = self.received.len();
            if seen > LONGEST_REQUEST {
                let message = format!("a request has at most {LONGEST_REQUEST} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if seen > 0 && deadline.is_none() {
                deadline = Some(Instant::now() + TRANSFER);
            }
            let limit = deadline.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
            // Zero would mean none.
            self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
            let mut buffer = [0; 4096];
            match { self.stream }.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if seen == 0 => return Ok(None),
                Err(_) => {
                    let message = "the request takes too long to arrive";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
            }
        }
    }

    /// # Errors
    ///
    /// The client is gone, or does not read.
    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        let deadline = Instant::now() + TRANSFER;
        let mut rest = &line[..];
        while !rest.is_empty() {
            let limit = deadline.saturating_duration_since(Instant::now());
            if limit.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(limit))?;
            // Not as a file, which would raise SIGPIPE.
            match send(self.stream.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
