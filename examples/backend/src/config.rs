//! What can be set, by arguments and by the environment.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use nix::sys::resource::{Resource, getrlimit};
use uthread_httpd::Limits;

use crate::api::TimeLimits;
use crate::store::Location;
use crate::work::Amount;

/// Descriptors for whatever else is opened now and then.
const SPARE_DESCRIPTORS: usize = 32;
/// Those of a connection to the database at most: a socket, and an event loop to wait with, of PostgreSQL's client; a file
/// and its log of SQLite's.
const DATABASE_DESCRIPTORS: usize = 4;

/// How the service is set up.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address to listen on; port 0 lets the kernel choose one
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub addr: SocketAddr,

    /// Directory of the database and of the log [default: a temporary one]
    #[arg(long)]
    pub directory: Option<PathBuf>,

    /// PostgreSQL to use (postgresql://..) instead of SQLite in the directory
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database: Option<String>,

    /// Connections to the database
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one::<usize>())]
    pub database_connections: usize,

    /// Time to wait for a connection to the database, and then for its answer
    #[arg(long, value_name = "MS", default_value = "2000", value_parser = milliseconds)]
    pub database_timeout: Duration,

    /// Time for the external API to take a connection
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    pub api_connect_timeout: Duration,

    /// Time for the external API to answer
    #[arg(long, value_name = "MS", default_value = "3000", value_parser = milliseconds)]
    pub api_timeout: Duration,

    /// CPU time that an order takes, on this machine when nothing disturbs
    #[arg(long, value_name = "MS", default_value = "10", value_parser = milliseconds)]
    pub order_work: Duration,

    /// Requests under way beyond which others are answered 503
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub under_way: usize,

    /// Connections beyond which others wait to be accepted [default and most: as many as there are descriptors for]
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,

    /// Passwords that are hashed at once; each takes 19 MiB
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one::<usize>())]
    pub passwords: usize,

    /// Images that are made at once; each takes up to 100 MiB, and most a few
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one::<usize>())]
    pub images: usize,

    /// Time to wait for one's turn with a password or an image
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    pub turn_timeout: Duration,

    /// Jobs in the queue beyond which others are answered 503
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub job_queue: usize,

    /// Jobs that are done at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one::<usize>())]
    pub job_workers: usize,

    /// Longest body of a request
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub body_limit: usize,

    /// Longest head of a request
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10, value_parser = at_least_one::<usize>())]
    pub head_limit: usize,

    /// Time for a request to arrive in full
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    pub request_timeout: Duration,

    /// Time a connection may stay open between requests
    #[arg(long, value_name = "MS", default_value = "60000", value_parser = milliseconds)]
    pub idle_timeout: Duration,

    /// Time for requests under way, and then for jobs, to be finished at the end
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    pub drain_timeout: Duration,
}

/// A limit of zero would let nothing through.
fn at_least_one<N: TryFrom<u64> + Clone + Send + Sync + 'static>() -> RangedU64ValueParser<N>
where
    <N as TryFrom<u64>>::Error: Send + Sync + 'static + std::error::Error + ToString,
{
    RangedU64ValueParser::new().range(1..)
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(Duration::from_millis(number)),
        Err(error) => Err(format!("milliseconds: {error}")),
    }
}

impl Config {
    /// What the server is to hold its clients to; to be asked when the process has opened what it keeps open.
    ///
    /// # Errors
    ///
    /// The system does not tell how many descriptors there are.
    pub fn limits(&self) -> io::Result<Limits> {
        let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let open = std::fs::read_dir("/proc/self/fd")?.count();
        let room = self.room(usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(open));
        Ok(Limits {
            body: self.body_limit,
            head: self.head_limit,
            request: self.request_timeout,
            idle: self.idle_timeout,
            drain: self.drain_timeout,
            connections: Some(self.connections.map_or(room, |connections| connections.min(room))),
            ..Limits::default()
        })
    }

    /// How many connections so many free descriptors are enough for, if whoever is let in is to be served: who took the last
    /// one would find the database and the API out of reach.
    fn room(&self, descriptors: usize) -> usize {
        let own = SPARE_DESCRIPTORS + DATABASE_DESCRIPTORS * self.database_connections;
        let others = descriptors.saturating_sub(own);
        // A request under way has one connection to the API at most.
        others.saturating_sub(self.under_way).max(others / 2).max(1)
    }

    /// What the external API is held to.
    pub fn api_limits(&self) -> TimeLimits {
        TimeLimits { connect: self.api_connect_timeout, answer: self.api_timeout }
    }

    /// Where the database is, with this directory.
    pub fn location(&self, directory: &std::path::Path) -> Location {
        match &self.database {
            Some(url) => Location::of(url),
            None => Location::Sqlite(directory.join("backend.db")),
        }
    }

    /// How much an order is to compute: measured here, so this takes some milliseconds.
    pub fn amount(&self) -> Amount {
        Amount::of_time(self.order_work)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn there_is_room_for_as_many_as_can_be_served() {
        let arguments = ["backend", "--database-connections", "10", "--under-way", "1000"];
        let config = Program::parse_from(arguments).config;
        let own = SPARE_DESCRIPTORS + 10 * DATABASE_DESCRIPTORS;
        assert_eq!(config.room(own + 5_000), 4_000);
        // Not all of them can be under way and have asked the API.
        assert_eq!(config.room(own + 500), 250);
        assert_eq!(config.room(own), 1);
        assert_eq!(config.room(0), 1);
    }
}
