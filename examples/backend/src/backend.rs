//! The whole: the service behind its server, with all that runs beside it, from the start to the end.
//!
//! The end comes in the order in which nothing is lost: requests under way are answered, each job is done that was
//! promised, then nobody logs any more and the log is written.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::Subscriber;
use uthread_httpd::{GreenThreads, Handler, Request, Response, Server};

use crate::api::Api;
use crate::config::Config;
use crate::gate::Gate;
use crate::groups::Groups;
use crate::jobs::{Jobs, Totals};
use crate::logging::{self, Logging};
use crate::service::{Parts, Service, Terms, perform};
use crate::store::Store;
use crate::telemetry::{Reading, Samples, Telemetry};

/// The service and all that belongs to it.
#[derive(Debug)]
pub struct Backend {
    config: Config,
    server: Arc<Server>,
    service: Arc<Service>,
    jobs: Ended,
    telemetry: Telemetry,
    logging: Logging,
}

/// What it did, told at its end.
#[derive(Debug)]
pub struct Summary {
    /// Connections that were accepted.
    pub connections: u64,
    /// What telemetry would note.
    pub reading: Reading,
    /// Jobs.
    pub jobs: Totals,
    /// Lines of the log.
    pub log: Arc<logging::Counters>,
}

/// Jobs whose workers end with this at the latest, be it that the start fails halfway.
#[derive(Debug)]
struct Ended(Arc<Jobs>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close(Duration::ZERO);
    }
}

/// A handler that others have, too.
struct Shared(Arc<Service>);

impl Handler for Shared {
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        // The answer may borrow from the service, which lives as long as this.
        self.0.handle(request)
    }
}

impl Backend {
    /// Sets everything up, in this directory and with the API at this URL; clients wait until [`run`](Self::run).
    ///
    /// To be called on a green thread of the runtime that is to run it all.
    ///
    /// # Errors
    ///
    /// The database cannot be opened, the address or a thread not be had, or the log not be written.
    pub fn start(config: &Config, directory: &Path, api: &str) -> io::Result<Backend> {
        let groups = Groups::new()?;
        // Measured before anything else runs.
        let amount = config.amount();
        let location = config.location(directory);
        let store = Store::open(&location, config.database_connections, config.database_timeout);
        let store = Arc::new(store.map_err(io::Error::other)?);
        let logging = Logging::start(directory, &groups.logging)?;
        let images = Arc::new(Gate::new(config.images));
        let (stored, gate) = (store.clone(), images.clone());
        let work = move |job: &_| perform(&stored, &gate, job);
        let jobs = Ended(Jobs::start(&groups.jobs, config.job_workers, config.job_queue, work)?);
        let samples = Arc::new(Samples::default());
        let parts = Parts {
            store,
            api: Api::new(api, config.api_limits()),
            groups: groups.clone(),
            jobs: jobs.0.clone(),
            samples: samples.clone(),
            log: logging.counters().clone(),
            images,
        };
        let terms = Terms {
            amount,
            under_way: config.under_way,
            passwords: config.passwords,
            turn: config.turn_timeout,
        };
        let service = Arc::new(Service::new(parts, terms));
        let threads = GreenThreads::new().group(&groups.requests);
        let handler = Shared(service.clone());
        let server =
            Server::bind(config.addr, config.limits()?, handler, threads).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.addr))
            })?;
        let seen = service.clone();
        let telemetry = Telemetry::start(&groups.telemetry, samples, move || seen.reading())?;
        let (config, server) = (config.clone(), Arc::new(server));
        Ok(Backend { config, server, service, jobs, telemetry, logging })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// The server, by which [`run`](Self::run) is ended from elsewhere.
    pub fn server(&self) -> Arc<Server> {
        self.server.clone()
    }

    /// What `tracing` is to be given, for this backend's log.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        self.logging.subscriber()
    }

    /// Serves until the server is stopped, and brings everything to its end.
    pub fn run(self) -> Summary {
        self.server.run();
        let jobs = self.jobs.0.close(self.config.drain_timeout);
        self.telemetry.finish();
        let log = self.logging.counters().clone();
        drop(self.logging);
        let connections = self.server.accepted();
        Summary { connections, reading: self.service.reading(), jobs, log }
    }
}

/// A name and a number a line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "connections_accepted {}", self.connections)?;
        writeln!(f, "requests_answered {}", self.reading.answered)?;
        writeln!(f, "requests_shed {}", self.reading.shed)?;
        writeln!(f, "requests_cut_off {}", self.reading.under_way)?;
        writeln!(f, "jobs_done {}", self.jobs.done)?;
        writeln!(f, "jobs_failed {}", self.jobs.failed)?;
        writeln!(f, "jobs_left {}", self.jobs.left)?;
        writeln!(f, "log_lines_written {}", self.log.written.load(Relaxed))?;
        writeln!(f, "log_lines_dropped {}", self.log.dropped.load(Relaxed))?;
        writeln!(f, "log_lines_failed {}", self.log.failed.load(Relaxed))
    }
}
