//! Connections, for whoever takes one and gives it back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Error, Result, Session};
use crate::gate::Gate;

type Connect = dyn Fn() -> Result<Box<dyn Session>> + Send + Sync;

/// A limited number of connections, made when they are needed.
pub(super) struct Pool {
    gate: Gate,
    patience: Duration,
    connect: Box<Connect>,
    /// The one used last is taken first: it is the likeliest to live, and those that are too many are never used.
    idle: Mutex<Vec<Box<dyn Session>>>,
    broken: AtomicU64,
}

impl Pool {
    pub(super) fn new<S: Session + 'static>(
        size: usize,
        patience: Duration,
        connect: impl Fn() -> Result<S> + Send + Sync + 'static,
    ) -> Pool {
        Pool {
            gate: Gate::new(size),
            patience,
            connect: Box::new(move || Ok(Box::new(connect()?))),
            idle: Mutex::default(),
            broken: AtomicU64::new(0),
        }
    }

    /// Asks something on a connection. If it panics, the connection is closed.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut dyn Session) -> Result<T>) -> Result<T> {
        let pass = self.gate.enter(self.patience).ok_or_else(|| {
            Error::Unavailable(format!("no connection was free for {:?}", self.patience))
        })?;
        // Not within the scrutinee of a `match`, whose lock would be held while connecting.
        let idle = self.idle().pop();
        let mut session = idle.map_or_else(|| (self.connect)(), Ok)?;
        let answer = ask(&mut *session);
        if let Err(Error::Unavailable(_)) = &answer {
            self.broken.fetch_add(1, Ordering::Relaxed);
            let ended = std::mem::take(&mut *self.idle());
            // Closing may wait, which is not to be done under the lock.
            drop((session, ended));
        } else {
            self.idle().push(session);
        }
        drop(pass);
        answer
    }

    /// How many connections have failed so far.
    pub(super) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    /// Connections are put in and taken out whole.
    fn idle(&self) -> MutexGuard<'_, Vec<Box<dyn Session>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("gate", &self.gate).finish_non_exhaustive()
    }
}
