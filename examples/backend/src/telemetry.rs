//! What the service does, every ten milliseconds: the newest ten seconds of it.
//!
//! A thread sleeps until the next sample is due, in a group of its own that is to wake up on time. How late it was is part
//! of the sample: that is what everybody waits who wakes up, if not longer.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use uthread::{Builder, Group, JoinHandle};

/// The time between samples.
pub const PERIOD: Duration = Duration::from_millis(10);
/// How many are kept.
pub const KEPT: usize = 1_000;

/// What is read of the service for a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Requests under way.
    pub under_way: u64,
    /// Requests answered so far.
    pub answered: u64,
    /// Requests turned away so far because too many were under way.
    pub shed: u64,
    /// Jobs that wait in the queue.
    pub queued: u64,
    /// Lines of the log that were dropped so far.
    pub log_dropped: u64,
}

/// A reading, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// Microseconds by which the sample was late.
    pub late_us: u64,
    /// What was read.
    #[serde(flatten)]
    pub reading: Reading,
}

/// The newest samples, the oldest first.
#[derive(Debug, Default)]
pub struct Samples(Mutex<VecDeque<Sample>>);

impl Samples {
    /// So many of them, or as many as there are.
    pub fn newest(&self, count: usize) -> Vec<Sample> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().skip(ring.len().saturating_sub(count)).copied().collect()
    }

    fn push(&self, sample: Sample) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(sample);
    }
}

/// Somebody who makes samples, until this is finished.
#[derive(Debug)]
pub struct Telemetry {
    end: SyncSender<()>,
    sampler: JoinHandle<()>,
}

impl Telemetry {
    /// Starts sampling.
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub fn start(
        group: &Group,
        samples: Arc<Samples>,
        read: impl Fn() -> Reading + Send + 'static,
    ) -> io::Result<Telemetry> {
        let (end, ended) = sync_channel(1);
        let builder = Builder::new().name("telemetry".to_owned()).group(group);
        let sampler = builder.spawn(move || {
            let began = Instant::now();
            let mut due = began + PERIOD;
            // The end interrupts the sleep.
            while ended.recv_timeout(due.saturating_duration_since(Instant::now()))
                == Err(RecvTimeoutError::Timeout)
            {
                let now = Instant::now();
                samples.push(Sample {
                    at_ms: now.duration_since(began).as_millis() as u64,
                    late_us: now.duration_since(due).as_micros() as u64,
                    reading: read(),
                });
                // Samples that were missed are not made up for: they would tell nothing.
                while due <= now {
                    due += PERIOD;
                }
            }
        })?;
        Ok(Telemetry { end, sampler })
    }

    /// Ends it.
    pub fn finish(self) {
        let _ = self.end.send(());
        let _ = self.sampler.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_made_every_ten_milliseconds_until_the_end() {
        let group = Group::builder().name("telemetry").build().unwrap();
        let samples = Arc::new(Samples::default());
        let telemetry = Telemetry::start(&group, samples.clone(), Reading::default).unwrap();
        while samples.newest(KEPT).len() < 5 {
            uthread::sleep(PERIOD);
        }
        telemetry.finish();
        let all = samples.newest(KEPT);
        assert!(all.is_sorted_by(|a, b| a.at_ms + 1 < b.at_ms + b.late_us / 1000 + 2));
        assert!(all[0].at_ms >= 10);
        assert_eq!(samples.newest(2), all[all.len() - 2..]);
    }

    #[test]
    fn only_the_newest_samples_are_kept() {
        let samples = Samples::default();
        let reading = Reading::default();
        for at_ms in 0..KEPT as u64 + 5 {
            samples.push(Sample { at_ms, late_us: 0, reading });
        }
        assert_eq!(samples.newest(usize::MAX).len(), KEPT);
        assert_eq!(samples.newest(1)[0].at_ms, KEPT as u64 + 4);
    }
}
