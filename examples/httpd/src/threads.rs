//! What connections run on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uthread::{Group, Runtime};

/// Starts a thread for each connection.
pub trait Threads: Send + Sync + 'static {
    /// Runs `connection`, which blocks as it likes and ends by itself.
    ///
    /// # Errors
    ///
    /// There is no thread for it. `connection` is dropped; its peer is answered 503 by the server, which goes on.
    fn start(&self, connection: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Whether a connection may wait for a further request. Not where others wait for its thread.
    fn keep_alive(&self) -> bool {
        true
    }
}

/// A green thread for each connection.
///
/// They start in the runtime that [`Server::run`](crate::Server::run) is called in, and in the group of its caller.
#[derive(Clone, Debug, Default)]
pub struct GreenThreads {
    group: Option<Group>,
    runtime: Option<Arc<Runtime>>,
    stack_size: Option<usize>,
}

impl GreenThreads {
    /// As by default.
    pub fn new() -> GreenThreads {
        GreenThreads::default()
    }

    /// Puts them into a group.
    #[must_use]
    pub fn group(mut self, group: &Group) -> GreenThreads {
        self.group = Some(group.clone());
        self
    }

    /// Has them run in this runtime. It lives at least as long as the server.
    #[must_use]
    pub fn runtime(mut self, runtime: &Arc<Runtime>) -> GreenThreads {
        self.runtime = Some(Arc::clone(runtime));
        self
    }

    /// Bytes of their stacks; as [`uthread::Builder::stack_size`].
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> GreenThreads {
        self.stack_size = Some(bytes);
        self
    }
}

impl Threads for GreenThreads {
    fn start(&self, connection: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let mut builder = uthread::Builder::new();
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        if let Some(group) = &self.group {
            builder = builder.group(group);
        }
        match &self.runtime {
            Some(runtime) => builder.spawn_in(runtime, connection)?,
            None => builder.spawn(connection)?,
        };
        Ok(())
    }
}

/// A thread of the operating system for each connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsThreads {
    stack_size: Option<usize>,
}

impl OsThreads {
    /// With stacks of `std`'s default size.
    pub fn new() -> OsThreads {
        OsThreads::default()
    }

    /// Bytes of their stacks; as [`std::thread::Builder::stack_size`].
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> OsThreads {
        self.stack_size = Some(bytes);
        self
    }
}

impl Threads for OsThreads {
    fn start(&self, connection: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let mut builder = std::thread::Builder::new();
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder.spawn(connection)?;
        Ok(())
    }
}

/// No thread at all: the one that accepts serves, one connection at a time.
///
/// While it serves, all others wait to be accepted. So each connection is closed after its answer, or a single idle
/// client would keep the others out. For the same reason nobody ends a request that is under way when the server
/// stops; the other limits do, and [`Limits::drain`](crate::Limits::drain) is of no effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct InPlace;

impl Threads for InPlace {
    fn start(&self, connection: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        // As elsewhere, what goes wrong with one connection ends that one. The panic has been reported.
        let _ = catch_unwind(AssertUnwindSafe(connection));
        Ok(())
    }

    fn keep_alive(&self) -> bool {
        false
    }
}
