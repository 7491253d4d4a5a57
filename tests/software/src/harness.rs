//! The same work on OS threads and on green ones.

use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uthread::{Runtime, Stats};

/// Far more than any of the work takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Threads that may block a worker however little they do.
const A_FEW: u64 = 10;

/// How often the work is done on green threads until the counters are as they should be. Whose core is taken away while it
/// has a lock of malloc's blocks all that come by, which happens now and then; calls that are missed, each time.
pub const ATTEMPTS: usize = 3;

/// How long a thread must have kept its worker from others for that to be a stall: more than the kernel takes the worker's
/// core away for others on a busy machine.
const STALL: Duration = Duration::from_secs(1);

/// The two kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `std::thread`.
    Os,
    /// `uthread`.
    Green,
}

impl Kind {
    /// Starts a thread of this kind and lets it go.
    pub fn spawn(self, f: impl FnOnce() + Send + 'static) {
        match self {
            Kind::Os => drop(std::thread::spawn(f)),
            Kind::Green => drop(uthread::spawn(f)),
        }
    }

    /// So many threads of this kind at once, each with its number; what they returned. To be called on a thread of the
    /// same kind.
    ///
    /// # Panics
    ///
    /// As the threads do.
    pub fn all<T: Send>(self, threads: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let job = &job;
        let results: Result<_, _> = match self {
            Kind::Os => std::thread::scope(|s| {
                let threads: Vec<_> = (0..threads).map(|i| s.spawn(move || job(i))).collect();
                threads.into_iter().map(|t| t.join()).collect()
            }),
            Kind::Green => uthread::scope(|s| {
                let threads: Vec<_> = (0..threads).map(|i| s.spawn(move || job(i))).collect();
                threads.into_iter().map(|t| t.join()).collect()
            }),
        };
        results.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// What is asked of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Workers that run the green threads.
    pub workers: usize,
    /// Calls of the C library that must have come to the runtime, at the least.
    pub calls: u64,
    /// How many in a thousand calls may have blocked a worker. Of a kind of calls that is missed, it is most of them; and if
    /// all are missed, each thread does once, and [`calls`](Self::calls) are too few.
    pub per_mille: u64,
}

impl Comparison {
    /// Two workers, which hardly anything may block but malloc: memory that one thread takes and another gives back is in an
    /// arena of which both want the lock; see [`without_shared_arenas`].
    pub const fn of_calls(calls: u64) -> Comparison {
        Comparison { workers: 2, calls, per_mille: 1 }
    }

    /// Does the work on OS threads, then on green ones, and compares.
    ///
    /// The work is begun on a thread of the kind that it is told, and starts its own by [`Kind`]. It may be done on green
    /// threads several times: see [`ATTEMPTS`].
    ///
    /// # Panics
    ///
    /// The results differ, the counters show that workers were blocked, or the work panics.
    pub fn run<T: PartialEq + Debug + Send>(self, work: impl Fn(Kind) -> T + Sync) -> T {
        // Tests of one process would wait for each other's locks of malloc, and be counted.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        without_shared_arenas();
        let began = Instant::now();
        let expected = std::thread::scope(|s| s.spawn(|| work(Kind::Os)).join());
        let expected = expected.unwrap_or_else(|panic| resume_unwind(panic));
        println!("OS threads: {:?}", began.elapsed());

        let mut finding = Ok(());
        for _ in 0..ATTEMPTS {
            let runtime = runtime(self.workers);
            let began = Instant::now();
            let result = watched(&runtime, || runtime.run(|| work(Kind::Green)));
            let time = began.elapsed();
            let stats = runtime.stats();
            println!(
                "{} green threads: {time:?}, {} calls parked or done at once, {} moves to helpers, {} stalls, {} switches",
                stats.spawned, stats.interposed, stats.helper_moves, stats.stalls, stats.switches
            );
            assert_eq!(result, expected, "green threads did something else than OS threads");
            finding = self.judge(&stats);
            if finding.is_ok() {
                return result;
            }
        }
        panic!("each time {}", finding.unwrap_err());
    }

    fn judge(self, stats: &Stats) -> Result<(), String> {
        if !uthread::interposed() {
            return Ok(());
        }
        let most = A_FEW + stats.interposed * self.per_mille / 1000;
        let goals = [
            (stats.interposed >= self.calls, "calls went past the runtime"),
            (stats.helper_moves <= most, "workers were blocked"),
            (stats.stalls == 0, "workers were kept"),
        ];
        match goals.iter().find(|(met, _)| !met) {
            Some((_, missed)) => Err(format!("{missed}:\n{stats}")),
            None => Ok(()),
        }
    }
}

/// Gives each thread an arena of malloc's (mallopt(3)); to be called before malloc has set a limit, when it is about to
/// exceed it.
///
/// By default there are eight arenas for each core. Who finds one locked, by a thread that was interrupted for example,
/// waits in the kernel, by a system call that is inlined in the C library. The counters could not tell that from
/// calls that are missed.
///
/// # Panics
///
/// If the C library's malloc does not know of arenas.
pub fn without_shared_arenas() {
    const ARENAS: libc::c_int = 4096;
    // SAFETY: it has no preconditions.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    assert_eq!(is_set, 1, "malloc does not know of arenas");
}

/// A runtime for the software: its stacks are those of `std`'s threads in size, which is what the software was written
/// for.
///
/// # Panics
///
/// It cannot be had.
pub fn runtime(workers: usize) -> Runtime {
    let builder = Runtime::builder().workers(workers).stack_size(2 << 20).stall_threshold(STALL);
    builder.build().expect("a runtime can be had")
}

/// Ends the process, and says what the runtime was doing, if the work takes too long.
fn watched<T>(runtime: &Runtime, work: impl FnOnce() -> T) -> T {
    let (over, ended) = mpsc::channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let threads = runtime.run(uthread::dump);
                let threads = threads.map_or_else(|e| e.to_string(), |dump| dump.to_string());
                // Not a macro: what those print is kept by the harness, and lost by the abort.
                let report = format!("the work hangs:\n{}\n{threads}\n", runtime.stats());
                let _ = std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes());
                std::process::abort();
            }
        });
        // Dropped when the work ends, by a panic too.
        let _over = over;
        work()
    })
}
