//! The log: `tracing`, a bounded queue, and a thread in a group of its own that writes to `tracing-appender`'s files.
//!
//! # Problem
//! A request must not wait for a disk to have its line written, and a disk that is slow or full must not take the
//! memory of the process.
//!
//! # Alternatives
//! - *Write at once.* The line is as late as the disk, and so is the answer.
//! - *`tracing_appender::non_blocking`.* Does the same as this, on an OS thread: the kernel would weigh it, not its group.
//!
//! # Choice
//! A line that finds the queue full is dropped and counted. The thread takes all lines that are there and writes them by
//! one call. At the end it is asked to stop by an entry behind all others, so what was logged before is written.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::Subscriber;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::fmt::MakeWriter;
use uthread::{Builder, Group, JoinHandle};

/// Lines that wait to be written; one has some hundred bytes.
const QUEUE: usize = 16 * 1024;
/// How much is written by one call.
const BATCH_BYTES: usize = 64 * 1024;
/// A file a day, for a week.
const FILES: usize = 7;

/// The log, which somebody writes until this is dropped.
#[derive(Debug)]
pub struct Logging {
    lines: Lines,
    /// There until the end.
    writer: Option<JoinHandle<()>>,
}

/// What has become of the lines so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lines that are in the file.
    pub written: AtomicU64,
    /// Lines that found the queue full, or came after the end.
    pub dropped: AtomicU64,
    /// Lines that the file did not take.
    pub failed: AtomicU64,
}

enum Entry {
    Line(Vec<u8>),
    End,
}

/// Where `tracing-subscriber` gets a writer for each line: the queue.
#[derive(Clone, Debug)]
struct Lines {
    queue: SyncSender<Entry>,
    counters: Arc<Counters>,
}

impl Logging {
    /// Starts writing to `backend.<date>.log` there.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or there is no thread.
    pub fn start(directory: &Path, group: &Group) -> io::Result<Logging> {
        let file = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix("backend")
            .filename_suffix("log")
            .max_log_files(FILES)
            .build(directory)
            .map_err(io::Error::other)?;
        let (queue, entries) = sync_channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let counts = counters.clone();
        let writer = Builder::new().name("logging".to_owned()).group(group);
        let writer = writer.spawn(move || write_all(&entries, file, &counts))?;
        Ok(Logging { lines: Lines { queue, counters }, writer: Some(writer) })
    }

    /// What `tracing` is to be given.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::fmt().with_ansi(false).with_writer(self.lines.clone()).finish()
    }

    /// What has become of the lines.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.lines.counters
    }
}

/// Has everything written that was logged before. Lines that come later are dropped, and counted.
impl Drop for Logging {
    fn drop(&mut self) {
        // The writer ends by this entry only, unless it panicked.
        let _ = self.lines.queue.send(Entry::End);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// Writes batches of lines until the end.
fn write_all(entries: &Receiver<Entry>, mut file: impl Write, counters: &Counters) {
    let mut batch = Vec::new();
    let mut is_over = false;
    while !is_over && let Ok(first) = entries.recv() {
        let mut lines = 0;
        for entry in std::iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Entry::End => is_over = true,
            }
            if is_over || batch.len() >= BATCH_BYTES {
                break;
            }
        }
        let written = file.write_all(&batch).and_then(|()| file.flush());
        let counter = if written.is_ok() { &counters.written } else { &counters.failed };
        counter.fetch_add(lines, Relaxed);
        batch.clear();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// Takes a line at a time: that is how `tracing-subscriber` writes.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.counters.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_before_the_end_or_counted_as_dropped() {
        const LINES: u64 = 2_000;
        let directory = tempfile::tempdir().unwrap();
        let group = Group::builder().name("logging").build().unwrap();
        let logging = Logging::start(directory.path(), &group).unwrap();
        let counters = logging.counters().clone();
        let dispatch = tracing::Dispatch::new(logging.subscriber());
        uthread::scope(|s| {
            for thread in 0..4 {
                let dispatch = &dispatch;
                s.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        (0..LINES / 4).for_each(|line| tracing::info!(thread, line, "a line"));
                    });
                });
            }
        });
        drop(logging);
        tracing::dispatcher::with_default(&dispatch, || tracing::info!("too late"));
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        let written = counters.written.load(Relaxed);
        assert_eq!(text.lines().filter(|line| line.contains("a line")).count() as u64, written);
        assert_eq!(written + counters.dropped.load(Relaxed), LINES + 1);
        assert_eq!(counters.failed.load(Relaxed), 0);
    }
}
