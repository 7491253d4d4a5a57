//! The database, through unmodified blocking clients: SQLite in a file, or PostgreSQL.
//!
//! # Problem
//! Thousands of requests want the database at the same time; of connections there are few, since each is a process of
//! the server's or a cache and file handles of SQLite's. Databases end and come back, and their connections with them.
//!
//! # Alternatives
//! - *A connection per request.* PostgreSQL starts a process for each, and refuses the hundredth.
//! - *The crate `r2d2`.* It makes connections on OS threads of its own, asks each whether it still lives
//!   by a round trip before every use or else never, and lets all who come wait for the whole time-out while the
//!   database refuses connections, instead of saying so.
//!
//! # Choice
//! A `pool` of our own, a few dozen lines over `std`'s locks. Who comes takes an idle connection, or makes one, or waits
//! in line, for so long at most. A connection that fails is closed, with all that are idle: what ended one has ended them
//! too. A question that changes nothing is then asked once more on a new connection, so that a database that was
//! restarted is hardly noticed. A change is not, since it may have been made: [`Error::Unavailable`].
//!
//! A database may also be there and say nothing: whoever waits for it gives up, on either (`deadline`).
//!
//! SQLite lets many read and one write, and has writers sleep and look again until they may. So all writing goes
//! through one connection, for which they wait in line.

mod deadline;
mod pool;
mod postgres;
mod sqlite;
pub mod statements;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::order::{Answer, Placed};
use pool::Pool;

/// Items that a new database has, by their numbers from 1 on.
pub const ITEMS: i64 = 1_000;
/// Pictures that a new database has, by their numbers from 1 on.
pub const PICTURES: i64 = 4;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The database cannot be reached, has ended meanwhile or is too busy: later it may be otherwise. Whether a change
    /// was made is unknown.
    Unavailable(String),
    /// It refused what it was asked.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unavailable(why) => write!(f, "the database cannot be asked: {why}"),
            Error::Refused(why) => write!(f, "the database refuses: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// What a database answers.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The price of one.
    pub price_cents: i64,
}

/// Sums over all orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many there are.
    pub orders: i64,
    /// Of how many different items.
    pub items: i64,
    /// What they cost together.
    pub total_cents: i64,
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite's, which is made if there is none.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL server.
    Postgres(String),
}

impl Location {
    /// Of a `postgres://` or `postgresql://` URL; anything else is a path.
    pub fn of(text: &str) -> Location {
        let is_url = ["postgres://", "postgresql://"].iter().any(|start| text.starts_with(start));
        if is_url { Location::Postgres(text.to_owned()) } else { Location::Sqlite(text.into()) }
    }
}

/// One connection, and what is asked on it.
trait Session: Send {
    fn prepare(&mut self) -> Result<()>;
    fn ping(&mut self) -> Result<()>;
    fn item(&mut self, id: i64) -> Result<Option<Item>>;
    fn order(&mut self, id: i64) -> Result<Option<Answer>>;
    fn password_hash(&mut self, name: &str) -> Result<Option<String>>;
    fn picture(&mut self, id: i64) -> Result<Option<Vec<u8>>>;
    fn report(&mut self) -> Result<Report>;
    fn record(&mut self, placed: &Placed) -> Result<i64>;
    fn add_user(&mut self, name: &str, hash: &str) -> Result<bool>;
    fn add_picture(&mut self, id: i64, png: &[u8]) -> Result<()>;
}

/// The database.
#[derive(Debug)]
pub struct Store {
    readers: Pool,
    /// Where writing goes, if not through the others.
    writer: Option<Pool>,
}

impl Store {
    /// Opens a database with so many connections at most, for each of which, for a place in it and for an answer one waits
    /// about so long at most; gives it tables and items if it has none.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or not be written to.
    pub fn open(location: &Location, connections: usize, patience: Duration) -> Result<Store> {
        let store = match location.clone() {
            Location::Sqlite(file) => Store {
                readers: sqlite::pool(file.clone(), connections, patience),
                writer: Some(sqlite::pool(file, 1, patience)),
            },
            Location::Postgres(url) => {
                Store { readers: postgres::pool(&url, connections, patience)?, writer: None }
            }
        };
        store.writer().with(|session| {
            session.prepare()?;
            (1..=PICTURES).try_for_each(|id| {
                let picture = || crate::work::sample_picture(320, 240, id as u32);
                if session.picture(id)?.is_some() {
                    Ok(())
                } else {
                    session.add_picture(id, &picture())
                }
            })
        })?;
        Ok(store)
    }

    /// Whether it answers.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn ping(&self) -> Result<()> {
        self.read(|session| session.ping())
    }

    /// The item with this number.
    ///
    /// # Errors
    ///
    /// See [`Error`]; so for all others.
    pub fn item(&self, id: i64) -> Result<Option<Item>> {
        self.read(|session| session.item(id))
    }

    /// The order with this number, as its client was answered.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn order(&self, id: i64) -> Result<Option<Answer>> {
        self.read(|session| session.order(id))
    }

    /// The hash of a user's password.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn password_hash(&self, name: &str) -> Result<Option<String>> {
        self.read(|session| session.password_hash(name))
    }

    /// The picture with this number, a PNG.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn picture(&self, id: i64) -> Result<Option<Vec<u8>>> {
        self.read(|session| session.picture(id))
    }

    /// Sums over all orders.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn report(&self) -> Result<Report> {
        self.read(|session| session.report())
    }

    /// Keeps an order; its number.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn record(&self, placed: &Placed) -> Result<i64> {
        self.writer().with(|session| session.record(placed))
    }

    /// Keeps a user; whether there was none of this name.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn add_user(&self, name: &str, hash: &str) -> Result<bool> {
        self.writer().with(|session| session.add_user(name, hash))
    }

    fn writer(&self) -> &Pool {
        self.writer.as_ref().unwrap_or(&self.readers)
    }

    /// Asks what may be asked twice.
    fn read<T>(&self, mut ask: impl FnMut(&mut dyn Session) -> Result<T>) -> Result<T> {
        let before = self.readers.broken();
        match self.readers.with(&mut ask) {
            // The connection had ended since it was used last; a new one may not.
            Err(Error::Unavailable(_)) if self.readers.broken() > before => self.readers.with(ask),
            other => other,
        }
    }
}
