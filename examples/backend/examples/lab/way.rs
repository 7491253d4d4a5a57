//! The ways of running the same service, and what a process of it is told.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who waits while a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// The only thread of the process.
    OneAtATime,
    /// A thread of `std` for each request.
    OsThreads,
    /// A green thread for each request.
    Green,
    /// A task on an event loop for each request, with CPU work and the database on tokio's blocking threads.
    Tokio,
}

impl Way {
    pub(crate) const ALL: [Way; 4] = [Way::OneAtATime, Way::OsThreads, Way::Green, Way::Tokio];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::OneAtATime => "one at a time",
            Way::OsThreads => "OS threads",
            Way::Green => "green threads",
            Way::Tokio => "tokio",
        }
    }
}

/// What a process of the service is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) way: Way,
    /// Where it may run; it has as many workers.
    pub(crate) cores: Vec<usize>,
    /// Of green threads, other than that many.
    pub(crate) workers: Option<usize>,
    /// Of green threads.
    pub(crate) preemption: bool,
    /// Of green threads: images and requests are groups.
    pub(crate) groups: bool,
    /// Of tokio: CPU work is done by its workers themselves.
    pub(crate) inline: bool,
    pub(crate) api: SocketAddr,
    pub(crate) database: PathBuf,
    /// The CPU work of a request, in rounds of the receipt.
    pub(crate) rounds: u32,
    /// How many images are being made smaller at any time, besides.
    pub(crate) image_jobs: usize,
}

impl Setup {
    /// How many orders compute at the same time, while others wait for their turn: as many as there are cores, each at
    /// full speed. On tokio twice as many: a turn passes from a blocking thread through a worker to the next, and while
    /// the kernel wakes them cores would idle. That serves it best, and costs it nothing.
    pub(crate) fn computing(&self) -> usize {
        match self.way {
            Way::Tokio => 2 * self.cores.len(),
            _ => self.cores.len(),
        }
    }
}

/// What a process that the lab starts is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Service(Setup),
    /// The external service, with the range of its latency in milliseconds.
    Api {
        cores: Vec<usize>,
        latency_ms: RangeInclusive<u64>,
    },
}
