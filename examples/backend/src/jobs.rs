//! Work that nobody waits for: a bounded queue, and threads in a group of their own.
//!
//! Who brings a job gets a number at once, and asks later what became of it. Of the queue it is stated how much it holds:
//! beyond, jobs are refused, since a queue without an end is a promise that nobody keeps. At the end, the service does
//! what is in the queue, for so long at most, and says how much it left.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use uthread::{Builder, Group};

use crate::failure::Failure;

/// Of how many jobs that are done it is remembered what became of them.
const REMEMBERED: usize = 1_000;

/// A job.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Job {
    /// Sums over all orders.
    Report {},
    /// A thumbnail of a picture in the database.
    Thumbnail {
        /// The number of the picture.
        picture: i64,
        /// How wide at most.
        width: u32,
    },
}

/// What a job has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// What the bytes are.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Arc<[u8]>,
}

/// What has become of a job.
#[derive(Clone, Debug)]
pub enum State {
    /// It waits in the queue.
    Queued,
    /// Somebody is at it.
    Running,
    /// It is done.
    Done(Product),
    /// It cannot be done.
    Failed(Arc<str>),
}

impl State {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done(_) => "done",
            State::Failed(_) => "failed",
        }
    }
}

/// How many jobs there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs that are done.
    pub done: u64,
    /// Jobs that cannot be done.
    pub failed: u64,
    /// Jobs that were not begun.
    pub left: u64,
}

/// The queue, and who works through it.
pub struct Jobs {
    capacity: usize,
    desk: Mutex<Desk>,
    /// A job has come, or the end.
    changed: Condvar,
    /// A worker has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Desk {
    queue: VecDeque<(u64, Job)>,
    states: HashMap<u64, State>,
    finished: VecDeque<u64>,
    last: u64,
    workers: usize,
    is_closed: bool,
    totals: Totals,
}

impl Jobs {
    /// Starts so many workers behind a queue of this capacity.
    ///
    /// # Errors
    ///
    /// There is no thread for one.
    pub fn start(
        group: &Group,
        workers: usize,
        capacity: usize,
        perform: impl Fn(&Job) -> Result<Product, Failure> + Send + Sync + 'static,
    ) -> io::Result<Arc<Jobs>> {
        let jobs = Arc::new(Jobs {
            capacity,
            desk: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
        });
        let perform = Arc::new(perform);
        for i in 0..workers {
            let (theirs, perform) = (jobs.clone(), perform.clone());
            let builder = Builder::new().name(format!("job worker {i}")).group(group);
            jobs.desk().workers += 1;
            let started = builder.spawn(move || theirs.work(&*perform));
            if let Err(error) = started {
                jobs.desk().workers -= 1;
                jobs.close(Duration::ZERO);
                return Err(error);
            }
        }
        Ok(jobs)
    }

    /// Puts a job into the queue; its number, unless the queue is full or closed.
    pub fn submit(&self, job: Job) -> Option<u64> {
        let mut desk = self.desk();
        if desk.is_closed || desk.queue.len() >= self.capacity {
            return None;
        }
        desk.last += 1;
        let number = desk.last;
        desk.queue.push_back((number, job));
        desk.states.insert(number, State::Queued);
        drop(desk);
        self.changed.notify_one();
        Some(number)
    }

    /// What has become of a job; nothing is known of those that never were or that were done long ago.
    pub fn state(&self, number: u64) -> Option<State> {
        self.desk().states.get(&number).cloned()
    }

    /// Jobs in the queue.
    pub fn queued(&self) -> usize {
        self.desk().queue.len()
    }

    /// Jobs so far.
    pub fn totals(&self) -> Totals {
        let desk = self.desk();
        Totals { left: desk.queue.len() as u64, ..desk.totals }
    }

    /// Takes no more jobs, and waits until those in the queue are done, for so long at most; then only for those that are
    /// being done.
    pub fn close(&self, patience: Duration) -> Totals {
        self.desk().is_closed = true;
        self.changed.notify_all();
        let at_work = |desk: &mut Desk| desk.workers > 0;
        let waited = self.ended.wait_timeout_while(self.desk(), patience, at_work);
        let (mut desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let left = std::mem::take(&mut desk.queue).len() as u64;
        let desk = self.ended.wait_while(desk, at_work).unwrap_or_else(PoisonError::into_inner);
        Totals { left, ..desk.totals }
    }

    /// One worker's life.
    fn work(&self, perform: &dyn Fn(&Job) -> Result<Product, Failure>) {
        let end = Ending(self);
        while let Some((number, job)) = self.next() {
            // A job that panics, as a damaged image may in a decoder, is one that failed.
            let attempt = std::panic::AssertUnwindSafe(|| perform(&job));
            let result = std::panic::catch_unwind(attempt)
                .unwrap_or_else(|_| Err(Failure::Own("it panicked".to_owned())));
            self.finish(number, result);
        }
        drop(end);
    }

    fn next(&self) -> Option<(u64, Job)> {
        let idle = |desk: &mut Desk| desk.queue.is_empty() && !desk.is_closed;
        let waited = self.changed.wait_while(self.desk(), idle);
        let mut desk = waited.unwrap_or_else(PoisonError::into_inner);
        let (number, job) = desk.queue.pop_front()?;
        desk.states.insert(number, State::Running);
        Some((number, job))
    }

    fn finish(&self, number: u64, result: Result<Product, Failure>) {
        let mut desk = self.desk();
        let state = match result {
            Ok(product) => {
                desk.totals.done += 1;
                State::Done(product)
            }
            Err(failure) => {
                desk.totals.failed += 1;
                State::Failed(failure.to_string().into())
            }
        };
        desk.states.insert(number, state);
        desk.finished.push_back(number);
        if desk.finished.len() > REMEMBERED
            && let Some(oldest) = desk.finished.pop_front()
        {
            desk.states.remove(&oldest);
        }
    }

    /// Nothing in here panics halfway.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a worker out.
struct Ending<'a>(&'a Jobs);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.desk().workers -= 1;
        self.0.ended.notify_all();
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn product(text: &str) -> Product {
        Product { content_type: "text/plain", body: text.as_bytes().into() }
    }

    fn group() -> Group {
        Group::builder().name("jobs").build().unwrap()
    }

    #[test]
    fn a_full_queue_refuses_and_the_rest_is_done_at_the_end() {
        let (go, wait) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let wait = Mutex::new(wait);
        let jobs = Jobs::start(&group(), 1, 2, move |_| {
            begun.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
            Ok(product("done"))
        })
        .unwrap();
        let first = jobs.submit(Job::Report {}).unwrap();
        has_begun.recv().unwrap();
        assert!(matches!(jobs.state(first), Some(State::Running)));
        let second = jobs.submit(Job::Report {}).unwrap();
        assert!(jobs.submit(Job::Report {}).is_some());
        assert!(jobs.submit(Job::Report {}).is_none(), "the queue is full");
        assert!(matches!(jobs.state(second), Some(State::Queued)));
        assert!(jobs.state(77).is_none());
        drop(go);
        assert_eq!(jobs.close(LONG), Totals { done: 3, failed: 0, left: 0 });
        assert!(matches!(jobs.state(second), Some(State::Done(p)) if p == product("done")));
        assert!(jobs.submit(Job::Report {}).is_none(), "it is closed");
    }

    #[test]
    fn a_job_that_fails_or_panics_is_told_and_the_next_is_done() {
        let jobs = Jobs::start(&group(), 1, 9, |job| match job {
            Job::Report {} => Ok(product("report")),
            Job::Thumbnail { picture: 1, .. } => panic!("a damaged image"),
            Job::Thumbnail { .. } => Err(Failure::Missing("picture")),
        })
        .unwrap();
        let panics = jobs.submit(Job::Thumbnail { picture: 1, width: 1 }).unwrap();
        let fails = jobs.submit(Job::Thumbnail { picture: 2, width: 1 }).unwrap();
        jobs.submit(Job::Report {}).unwrap();
        assert_eq!(jobs.close(LONG), Totals { done: 1, failed: 2, left: 0 });
        assert!(matches!(jobs.state(panics), Some(State::Failed(why)) if why.contains("panicked")));
        assert!(matches!(jobs.state(fails), Some(State::Failed(why)) if why.contains("no such")));
    }

    #[test]
    fn what_is_not_begun_in_time_at_the_end_is_left_and_counted() {
        let (begun, has_begun) = mpsc::channel();
        let closing = Arc::new(std::sync::Barrier::new(2));
        let theirs = closing.clone();
        let jobs = Jobs::start(&group(), 1, 9, move |_| {
            begun.send(()).unwrap();
            theirs.wait();
            // Longer than the patience that the end has.
            uthread::sleep(Duration::from_millis(50));
            Ok(product("late"))
        })
        .unwrap();
        assert!((0..4).all(|_| jobs.submit(Job::Report {}).is_some()));
        has_begun.recv().unwrap();
        closing.wait();
        assert_eq!(jobs.close(Duration::ZERO), Totals { done: 1, failed: 0, left: 3 });
    }
}
