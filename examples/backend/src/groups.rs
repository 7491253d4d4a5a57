//! The kinds of work in the process, and what each gets of the CPU when there is not enough for all.
//!
//! | group | weight | latency | why |
//! |---|---|---|---|
//! | requests | 800 | 0.5 ms | Somebody waits for each, and each needs little at a time. |
//! | images | 100 | | Somebody waits, too, but for whole cores: one image is as much as some ten requests. |
//! | jobs | 50 | | Nobody waits; they take what is left, and a little always, so that the queue moves. |
//! | logging | 100 | | Needs next to nothing, but if it gets nothing the queue of lines fills up and lines are lost. |
//! | telemetry | 50 | 0.1 ms | Needs next to nothing, too, but at its time: a late sample measures itself. |
//!
//! Weights matter only when cores are short: a group that is alone gets all. A password is hashed among the requests,
//! as it is one: some twenty milliseconds, in slices.
//!
//! A thread's group is fixed when it is spawned. So a piece of a request that belongs elsewhere, as an image, is a
//! thread of its own in that group, which the request joins; to spawn and join it costs less than a microsecond.

use std::io;
use std::time::Duration;

use uthread::{Builder, Group};

use crate::failure::Failure;

/// A group for each kind of work.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Connections and what they are asked.
    pub requests: Group,
    /// Images that requests wait for.
    pub images: Group,
    /// Background jobs.
    pub jobs: Group,
    /// Writing the log.
    pub logging: Group,
    /// Samples.
    pub telemetry: Group,
}

impl Groups {
    /// Creates them.
    ///
    /// # Errors
    ///
    /// There are too many groups in the process.
    pub fn new() -> io::Result<Groups> {
        let group = |name: &str, weight| Group::builder().name(name).weight(weight);
        Ok(Groups {
            requests: group("requests", 800).latency(Duration::from_micros(500)).build()?,
            images: group("images", 100).build()?,
            jobs: group("jobs", 50).build()?,
            logging: group("logging", 100).build()?,
            telemetry: group("telemetry", 50).latency(Duration::from_micros(100)).build()?,
        })
    }
}

/// Has a piece of a request done in another group, and waits for it.
///
/// # Errors
///
/// There is no thread for it, or it panicked.
pub fn elsewhere<T: Send>(group: &Group, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    uthread::scope(|scope| {
        let piece = Builder::new().group(group).spawn_scoped(scope, work);
        let piece = piece.map_err(|_| Failure::Busy("there is no thread left"))?;
        piece.join().map_err(|_| Failure::Own("it panicked".to_owned()))
    })
}
