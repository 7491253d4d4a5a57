//! A socket through which a running process can be looked into, by `uthread-top` or any other client.
//!
//! It is there if it was asked for: by [`RuntimeBuilder::socket`](crate::RuntimeBuilder::socket), or by the
//! environment variable `UTHREAD_SOCKET`, which programs need not know of (and set-user-ID programs do not heed). What is
//! said there is in [`protocol`].
//!
//! ```sh
//! UTHREAD_SOCKET=/run/user/1000/server.sock ./server &
//! echo '{"snapshot":{"sort":"run_time","descending":true,"limit":3}}' | nc -NU /run/user/1000/server.sock
//! ```
//!
//! **Problem.** A server that is late must be asked what it does, while it does it, by somebody who did not
//! think of that when it was started; and asking must not make it later.
//!
//! **Alternatives.** A page of HTTP needs a port, and whoever reaches the port can read names and stacks. A shared
//! memory segment that workers write to makes all that can be asked a layout to be kept. To attach as a debugger stops
//! the process. And green threads that serve would wait for their turns behind what is to be looked into.
//!
//! **Choice.** A Unix socket, whose file says who may connect, and OS threads of its own, which the kernel gives their
//! turns even when all workers are stuck. They only read: a census copies control blocks, no worker waits for it, and
//! only a thread whose stack is asked for is interrupted, if it runs. The server sorts and searches, so that the
//! client gets a page of a list, not 100,000 threads each second.
//!
//! - [`protocol`]: requests and answers. - `socket`: the file. - `serve`: connections and their limits. -
//!   `snapshot`: answers. - `page`: sorting and searching.

mod page;
pub mod protocol;
mod serve;
mod snapshot;
mod socket;

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use serve::Server;

use crate::runtime::order_from_environment;
use crate::worker::Runtime;

/// The environment variable with the path of the socket.
const VARIABLE: &str = "UTHREAD_SOCKET";

/// A socket that nobody serves yet.
pub(crate) struct Opened {
    listener: UnixListener,
    file: socket::SocketFile,
    /// If it is the one that the environment wants.
    turn: Option<Turn>,
}

/// The right to be the runtime that serves where the environment says. Once it serves it is kept for good; if it does
/// not start after all, another may.
struct Turn(());

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn take() -> Option<Turn> {
        (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Turn(()))
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Relaxed);
    }
}

impl Opened {
    /// The socket at this path, or, if there is none, the one that the environment wants.
    ///
    /// The latter is for the first runtime of the process. Since child processes inherit the variable, it is no error if
    /// it cannot be had: it is told on stderr.
    ///
    /// # Errors
    ///
    /// Those of [`socket::open`], for a path that was given.
    pub(crate) fn wanted(path: Option<&Path>) -> io::Result<Option<Opened>> {
        let open =
            |path| socket::open(path).map(|(listener, file)| Opened { listener, file, turn: None });
        if let Some(path) = path {
            return open(path).map(Some);
        }
        let Some(path) = order_from_environment(VARIABLE).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let Some(turn) = Turn::take() else { return Ok(None) };
        match open(Path::new(&path)) {
            Ok(opened) => Ok(Some(Opened { turn: Some(turn), ..opened })),
            Err(e) => {
                // To be told once is enough. Nobody to tell is no reason to panic.
                turn.keep();
                let _ = writeln!(io::stderr(), "uthread: {VARIABLE}: {e}");
                Ok(None)
            }
        }
    }

    /// Serves a runtime there.
    ///
    /// # Errors
    ///
    /// There can be no more OS threads.
    pub(crate) fn serve(self, runtime: &Arc<Runtime>) -> io::Result<Server> {
        let server = Server::start(self.listener, self.file, runtime.clone())?;
        if let Some(turn) = self.turn {
            turn.keep();
        }
        Ok(server)
    }
}
