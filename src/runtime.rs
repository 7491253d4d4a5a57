//! The public face of runtimes: the one that starts by itself, and others for those who want several.

use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::context::{stack, tls};
use crate::group::Group;
#[cfg(feature = "inspect")]
use crate::inspect;
use crate::preempt::{self, Stall, StallHook};
use crate::roster;
#[cfg(feature = "prometheus")]
use crate::stats::prometheus as text_of;
use crate::stats::{SchedStat, Stats, WorkerStat};
use crate::thread::{self, JoinHandle};
use crate::trace::{self, Trace};
use crate::worker::{self, Config};

/// Configures a [`Runtime`].
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = uthread::Runtime::builder().workers(2).stack_size(256 << 10).build()?;
/// assert_eq!(runtime.run(|| uthread::spawn(|| 6 * 7).join().unwrap()), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build` or `build_global`"]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    stack_size: Option<usize>,
    ring_entries: u32,
    thread_blocks: bool,
    name: String,
    preemption: bool,
    slice: Option<Duration>,
    helpers: usize,
    stall_threshold: Duration,
    on_stall: Option<StallHook>,
    trace_events: usize,
    #[cfg(feature = "inspect")]
    socket: Option<std::path::PathBuf>,
    #[cfg(all(test, not(loom)))]
    tape: usize,
}

impl RuntimeBuilder {
    /// Records so many events of the scheduler.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn tape(mut self, events: usize) -> Self {
        self.tape = events;
        self
    }

    /// Number of workers, the OS threads that run green threads. At least 1; by default the environment
    /// variable `UTHREAD_WORKERS` or else [`available_parallelism`](crate::available_parallelism).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers.max(1));
        self
    }

    /// Bytes of address space for the stack of a green thread that does not ask for another size. By
    /// default the environment variable `UTHREAD_STACK_SIZE` or else 512 KiB.
    ///
    /// Sizes are rounded up to a power of two of at least 32 KiB and at most 64 GiB. They include a guard
    /// page and some 3 KiB for the thread block. Only the pages that a thread touches cost memory.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Submission entries of each worker's ring, by default 1024: how many ops may be begun before
    /// they are handed to the kernel. More may be in flight.
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.ring_entries = entries.clamp(2, 32768);
        self
    }

    /// Whether green threads have thread-local storage of their own, which is the default wherever it
    /// can be had; [`Runtime::thread_blocks`] tells.
    ///
    /// Without it they share the thread-locals of their worker, `errno` and the panic count included, and
    /// never move to another worker once they have started. What holds a thread-local borrowed across a
    /// wait, or panics in a destructor that waits, then disturbs its neighbours.
    pub fn thread_blocks(mut self, own: bool) -> Self {
        self.thread_blocks = own;
        self
    }

    /// What the workers' OS threads are called, followed by a number; `uthread` by default. The kernel
    /// shows 15 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether a green thread that computes for longer than a [`slice`](Self::slice) is interrupted when
    /// others wait for its worker. On by default wherever it can be had; [`Runtime::preemption`] tells.
    pub fn preemption(mut self, on: bool) -> Self {
        self.preemption = on;
        self
    }

    /// How long a green thread may compute while others wait for its worker, by default the environment
    /// variable `UTHREAD_SLICE_US` (microseconds) or else 2 ms; at least 20 µs.
    ///
    /// Shorter slices cost throughput, one timer interrupt and one switch each. Threads that wake up do
    /// not wait for the end of a slice: see "Forced preemption" in `docs/design.md`.
    pub fn slice(mut self, slice: Duration) -> Self {
        self.slice = Some(slice);
        self
    }

    /// The largest number of helpers, OS threads that host green threads which block in the kernel; by
    /// default 4,096. They are started when needed and end when idle. Each takes some 40 KiB and five of the process's
    /// maps (`vm.max_map_count` in proc(5)).
    ///
    /// Beyond the limit, or where the system has no more OS threads, those that block do so on their workers, for a slice
    /// at a time when others wait. Where thousands do, whoever holds what they wait for has its turn after all of them:
    /// they seem to stand still.
    pub fn helpers(mut self, most: usize) -> Self {
        self.helpers = most.max(1);
        self
    }

    /// How long a thread may keep its worker from others, by default 50 ms, before that is a
    /// [`Stall`] to be reported.
    pub fn stall_threshold(mut self, threshold: Duration) -> Self {
        self.stall_threshold = threshold;
        self
    }

    /// What to do about a [`Stall`], besides counting it. By default nothing or, if the environment
    /// variable `UTHREAD_STALLS` is `1`, a message on stderr.
    ///
    /// The hook runs on an OS thread of its own, one stall after the other. It may wait for what green threads hold;
    /// if it panics, the next stall is reported nevertheless.
    pub fn on_stall(mut self, hook: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.on_stall = Some(StallHook::new(hook));
        self
    }

    /// How many events of its scheduler each worker keeps for [`Runtime::trace`]; by default 8192. They take 16
    /// bytes each. Rounded up to a power of two, and at most 2²⁴; with 0, none are kept.
    pub fn trace_events(mut self, events: usize) -> Self {
        self.trace_events = events.min(1 << 24);
        self
    }

    /// Opens a Unix socket there, through which `uthread-top` and other programs of the same user can look into the
    /// runtime; see [`inspect`]. By default the environment variable `UTHREAD_SOCKET`, for the
    /// first runtime of the process, or else none.
    ///
    /// The file's mode is 0600. A file that a killed process has left there is replaced. It is removed when the
    /// runtime is dropped, and at the process's normal end.
    #[cfg(feature = "inspect")]
    pub fn socket(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    fn config(&self) -> Config {
        let slice = self.slice.or_else(|| {
            from_environment("UTHREAD_SLICE_US").map(|us| Duration::from_micros(us as u64))
        });
        let workers = self.workers.or_else(|| from_environment("UTHREAD_WORKERS"));
        let stack_size = self.stack_size.or_else(|| from_environment("UTHREAD_STACK_SIZE"));
        Config {
            workers: workers
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
                .max(1),
            stack_size: stack::rounded_size(stack_size.unwrap_or(stack::DEFAULT_SIZE)),
            ring_entries: self.ring_entries,
            thread_blocks: self.thread_blocks,
            name: self.name.clone(),
            preemption: if self.preemption {
                Ok(())
            } else {
                Err("switched off by RuntimeBuilder::preemption")
            },
            slice: slice.unwrap_or(preempt::DEFAULT_SLICE).max(preempt::LEAST_SLICE),
            helpers: self.helpers,
            stall_threshold: self.stall_threshold,
            on_stall: self.on_stall.clone().or_else(StallHook::from_environment),
            trace_events: self.trace_events,
            #[cfg(all(test, not(loom)))]
            tape: self.tape,
        }
    }

    /// Starts a runtime.
    ///
    /// # Errors
    ///
    /// An OS thread, a descriptor, an io_uring or the socket cannot be had; the message says why and what to do.
    pub fn build(self) -> io::Result<Runtime> {
        #[cfg(feature = "inspect")]
        let socket = inspect::Opened::wanted(self.socket.as_deref())?;
        #[cfg_attr(not(feature = "inspect"), expect(unused_mut))]
        let mut runtime = Runtime {
            inner: worker::Runtime::start(self.config())?,
            #[cfg(feature = "inspect")]
            _server: None,
        };
        #[cfg(feature = "inspect")]
        if let Some(socket) = socket {
            runtime._server = Some(socket.serve(runtime.inner())?);
        }
        roster::as_environment_says();
        Ok(runtime)
    }

    /// Starts the runtime that threads outside of any runtime spawn into, instead of letting the first
    /// spawn start it with the defaults. It lasts until the process ends.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and [`io::ErrorKind::AlreadyExists`] if it runs already.
    pub fn build_global(self) -> io::Result<()> {
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if GLOBAL.get().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the global runtime runs already",
            ));
        }
        let runtime = self.build()?;
        // Nobody else sets it, since the lock is held.
        GLOBAL.set(runtime).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }
}

/// A variable that has the process do something to files or signals. A program that has more rights than its caller
/// (getauxval(3), `AT_SECURE`) takes no orders from there.
pub(crate) fn order_from_environment(name: &str) -> Option<OsString> {
    // SAFETY: no preconditions.
    let is_trusted = unsafe { libc::getauxval(libc::AT_SECURE) } == 0;
    std::env::var_os(name).filter(|_| is_trusted)
}

/// A number from the environment; what is none is not there.
fn from_environment(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

static GLOBAL: OnceLock<Runtime> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// Calls `f` with the calling green thread's runtime; on other threads, with the one of threads that are in none, if it
/// has started.
pub(crate) fn with_own<T>(f: impl FnOnce(&worker::Runtime) -> T) -> Option<T> {
    match worker::current() {
        Some(thread) => Some(f(thread.get().runtime())),
        None => GLOBAL.get().map(|runtime| f(&runtime.inner)),
    }
}

/// The runtime of threads that are in none; it is started at the first use.
pub(crate) fn global() -> io::Result<&'static worker::Runtime> {
    if let Some(running) = GLOBAL.get() {
        return Ok(&running.inner);
    }
    match Runtime::builder().build_global() {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(&GLOBAL.get().expect("it was just started").inner),
    }
}

/// A set of workers with the green threads that run on them.
///
/// Programs need none of their own: [`spawn`](crate::spawn) starts one at its first use. Several in one
/// process are for tests, and for work that must not share workers. A green thread's spawns go into its
/// own runtime.
///
/// Dropping a runtime waits until all its green threads have ended; there is no way to end a thread
/// from outside that is sound. (Dropped by one of its own green threads, it ends without being waited
/// for.) `std::mem::forget` leaves it running for good.
#[derive(Debug)]
pub struct Runtime {
    inner: Arc<worker::Runtime>,
    /// Dropped when the runtime has ended.
    #[cfg(feature = "inspect")]
    _server: Option<inspect::Server>,
}

impl std::fmt::Debug for worker::Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let workers = self.workers().len();
        f.debug_struct("Runtime")
            .field("workers", &workers)
            .field("live", &self.live())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// A builder with the defaults.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder {
            workers: None,
            stack_size: None,
            ring_entries: 1024,
            thread_blocks: true,
            name: "uthread".to_owned(),
            preemption: true,
            slice: None,
            helpers: 4_096,
            stall_threshold: Duration::from_millis(50),
            on_stall: None,
            trace_events: trace::DEFAULT_EVENTS,
            #[cfg(feature = "inspect")]
            socket: None,
            #[cfg(all(test, not(loom)))]
            tape: 0,
        }
    }

    /// Spawns a green thread in this runtime; otherwise as [`spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// Panics if the thread cannot be created; [`Builder::spawn_in`](crate::Builder::spawn_in) returns
    /// the error.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        thread::Builder::new().spawn_in(self, f).expect("failed to spawn thread")
    }

    /// Runs `f` as a green thread of this runtime and returns its result when it ends.
    ///
    /// # Panics
    ///
    /// Panics if the thread cannot be created, and goes on with the panic if `f` panics.
    ///
    /// # Blocking
    ///
    /// Blocks the calling OS thread, or parks the calling green thread.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        // SAFETY: the thread has ended, and dropped what it borrowed, when `join` returns; nothing in
        // between unwinds.
        let joined = match unsafe { thread::Builder::new().spawn_unchecked_in(&self.inner, f) } {
            Ok(handle) => handle.join(),
            Err(e) => panic!("failed to spawn thread: {e}"),
        };
        joined.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    /// Ends the runtime, and returns what was recorded.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn recording(self) -> Option<crate::worker::Recording> {
        let inner = self.inner.clone();
        drop(self);
        inner.tape().take()
    }

    /// Counters of this runtime, and the process's stacks.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner)
    }

    /// What each worker does, by their indices; as [`workers`](fn@crate::workers).
    pub fn workers(&self) -> Vec<WorkerStat> {
        workers_of(&self.inner)
    }

    /// The newest events of the scheduler, for the time when something was slow: see [`trace`](mod@crate::trace).
    ///
    /// The runtime goes on meanwhile. Each worker keeps some thousands
    /// ([`RuntimeBuilder::trace_events`]), and all other OS threads together as many as one worker.
    pub fn trace(&self) -> Trace {
        Trace::of(&self.inner)
    }

    /// What the threads of a group have used so far in this runtime.
    pub fn group_stats(&self, group: &Group) -> SchedStat {
        self.inner.group_stats(group.as_member())
    }

    /// All groups of the process ([`Group::all`]), and what their threads have used so far in this runtime.
    pub fn groups(&self) -> Vec<(Group, SchedStat)> {
        groups_of(&self.inner)
    }

    /// All metrics of this runtime and its groups as text, in the format that Prometheus scrapes; as
    /// [`prometheus`](fn@crate::prometheus).
    #[cfg(feature = "prometheus")]
    pub fn prometheus(&self) -> String {
        prometheus_of(&self.inner)
    }

    /// Whether the green threads of this runtime own their thread-locals.
    ///
    /// # Errors
    ///
    /// They do not, because the builder said so, or for the reason given.
    pub fn thread_blocks(&self) -> io::Result<()> {
        if self.inner.owns_thread_blocks() {
            return Ok(());
        }
        let reason =
            tls::available().err().unwrap_or("switched off by RuntimeBuilder::thread_blocks");
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    /// Whether green threads of this runtime are interrupted when they compute for too long.
    ///
    /// # Errors
    ///
    /// They are not, because the builder said so, or for the reason given.
    pub fn preemption(&self) -> io::Result<()> {
        self.thread_blocks()?;
        self.inner.preemption().map_err(|reason| io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    pub(crate) fn inner(&self) -> &Arc<worker::Runtime> {
        &self.inner
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.inner.close();
    }
}

/// Counters of the calling green thread's runtime; on other threads, of the one that
/// [`spawn`](crate::spawn) uses there. All zero if that was never started.
pub fn stats() -> Stats {
    with_own(Stats::of).unwrap_or_default()
}

/// What each worker does of the calling green thread's runtime; on other threads, of the one that
/// [`spawn`](crate::spawn) uses there. None if that was never started.
///
/// # Examples
///
/// How busy they were in the meantime, one by one:
///
/// ```
/// # uthread::spawn(|| {}).join().unwrap();
/// let (before, began) = (uthread::workers(), std::time::Instant::now());
/// uthread::spawn(uthread::yield_now).join().unwrap();
/// let elapsed = began.elapsed();
/// for (now, before) in uthread::workers().iter().zip(&before) {
///     let busy = now.since(before).busy.as_secs_f64() / elapsed.as_secs_f64();
///     println!("worker {}, OS thread {}: {:.0} %", now.index, now.os_thread, busy * 100.0);
/// }
/// ```
pub fn workers() -> Vec<WorkerStat> {
    with_own(workers_of).unwrap_or_default()
}

fn workers_of(runtime: &worker::Runtime) -> Vec<WorkerStat> {
    runtime.workers().iter().map(WorkerStat::of).collect()
}

/// The newest events of the scheduler of the calling green thread's runtime; on other threads, of the one that
/// [`spawn`](crate::spawn) uses there. None if that was never started.
pub fn trace() -> Trace {
    with_own(Trace::of).unwrap_or_else(Trace::empty)
}

fn groups_of(runtime: &worker::Runtime) -> Vec<(Group, SchedStat)> {
    let all = Group::all().into_iter();
    all.map(|group| (group.clone(), runtime.group_stats(group.as_member()))).collect()
}

#[cfg(feature = "prometheus")]
fn prometheus_of(runtime: &worker::Runtime) -> String {
    let groups = groups_of(runtime).into_iter().map(|(group, stat)| (group.name(), stat));
    text_of(Stats::of(runtime), workers_of(runtime), groups)
}

/// All metrics as text, in the format that Prometheus scrapes (version 0.0.4): of the calling green thread's runtime; on
/// other threads, of the one that [`spawn`](crate::spawn) uses there. Empty if that was never started.
///
/// Names begin with `uthread_`, counters end in `_total`, times are in seconds. Histograms have a bucket per power of
/// two of nanoseconds; [`Stats`] has finer ones. What workers do has the label `worker`, their index. What groups have used has the label `group`, their name; groups of the
/// same name are summed up. Needs the feature `prometheus`.
///
/// # Examples
///
/// ```
/// let text = uthread::spawn(uthread::prometheus).join().unwrap();
/// assert!(text.contains("uthread_spawned_total 1\n"));
/// ```
#[cfg(feature = "prometheus")]
pub fn prometheus() -> String {
    with_own(prometheus_of).unwrap_or_default()
}
