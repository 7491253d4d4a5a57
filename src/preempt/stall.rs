//! Reports of threads that kept their worker from others for too long.
//!
//! The handler finds out that a thread is pinned, has blocked signals, or has no room left on its stack,
//! and can do no more than note when that began. The monitor looks at the notes. When one gets too old, a
//! reporter asks the handler, by another signal, for the thread's stack; the handler writes down return
//! addresses, and the reporter makes a report of them. It is an OS thread that does nothing else, since it may
//! have to wait for what a stalled thread holds. A thread that is in the kernel with its signals pending has
//! no stack to show but the system call itself, of which the kernel tells.

use std::ffi::c_void;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::seat::Seat;
use crate::time::now;

/// Why a worker could not be taken away from a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallKind {
    /// The thread is in a section without preemption.
    PreemptionDisabled,
    /// The thread is in a call that cannot be interrupted, or has blocked signals.
    Uninterruptible,
}

/// A green thread kept its worker from others for longer than the runtime's threshold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stall {
    /// Why it could not be interrupted.
    pub kind: StallKind,
    /// The thread's name, if it has one.
    pub thread_name: Option<String>,
    /// For how long, up to now.
    pub duration: Duration,
    /// The thread's stack, innermost frame first, one line each. Empty if it could not be had.
    pub stack: String,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.thread_name.as_deref().unwrap_or("<unnamed>");
        write!(f, "green thread '{name}' ")?;
        match self.kind {
            StallKind::PreemptionDisabled => f.write_str("kept preemption disabled")?,
            StallKind::Uninterruptible => f.write_str("is in a call that cannot be interrupted")?,
        }
        write!(f, " for {} ms; its stack:\n{}", self.duration.as_millis(), self.stack)
    }
}

/// What is called with each stall.
#[derive(Clone)]
pub(crate) struct StallHook(Arc<dyn Fn(&Stall) + Send + Sync>);

impl StallHook {
    pub(crate) fn new(hook: impl Fn(&Stall) + Send + Sync + 'static) -> StallHook {
        StallHook(Arc::new(hook))
    }

    /// The default: a message on stderr, if the environment asks for it.
    pub(crate) fn from_environment() -> Option<StallHook> {
        (std::env::var_os("UTHREAD_STALLS")? == "1").then(|| {
            StallHook::new(|stall| {
                // Nobody to tell is no reason to panic.
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("uthread: {stall}"),
                );
            })
        })
    }

    /// Calls it; a panic of the hook's own has been told by the panic hook.
    pub(crate) fn call(&self, stall: &Stall) {
        let call = std::panic::AssertUnwindSafe(|| (self.0)(stall));
        let _ = std::panic::catch_unwind(call);
    }
}

impl fmt::Debug for StallHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StallHook")
    }
}

/// The most frames of a report.
const FRAMES: usize = 64;
/// How long the reporter waits for the handler to write down a stack.
const PATIENCE: Duration = Duration::from_millis(500);

/// What handler and reporter tell each other about one worker.
pub(crate) struct Stalls {
    /// When the handler first found that the present thread cannot be interrupted, 0 if it has not; and the
    /// number of switches then, which tells whether that thread is still the present one. Written by
    /// the handler.
    since: AtomicU64,
    switches: AtomicU64,
    /// Whether it was pinned then.
    pinned: AtomicBool,
    /// The reporter asks for the stack.
    wanted: AtomicBool,
    /// The stack: so many addresses. 0 until it is written.
    depth: AtomicUsize,
    frames: [AtomicUsize; FRAMES],
    /// What was found last.
    found: Mutex<Option<Found>>,
}

/// A stall that the monitor has found.
#[derive(Clone, Copy, Debug)]
struct Found {
    kind: StallKind,
    /// Nanoseconds of the monotonic clock; tells one from the next.
    since: u64,
    /// The handler noted it, and so can tell the stack.
    noted: bool,
    /// The reporter has taken it.
    told: bool,
}

impl Stalls {
    pub(crate) fn new() -> Stalls {
        Stalls {
            since: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            depth: AtomicUsize::new(0),
            frames: [const { AtomicUsize::new(0) }; FRAMES],
            found: Mutex::new(None),
        }
    }

    /// The handler has found that a thread cannot be interrupted, since it is pinned or for another reason,
    /// after so many switches of its worker.
    pub(crate) fn note(&self, switches: u64, pinned: bool) {
        if self.since.load(Ordering::Relaxed) == 0
            || self.switches.swap(switches, Ordering::Relaxed) != switches
        {
            self.switches.store(switches, Ordering::Relaxed);
            self.pinned.store(pinned, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
        }
        if self.wanted.load(Ordering::Acquire) {
            self.wanted.store(false, Ordering::Relaxed);
            self.write_down();
        }
    }

    /// The thread can be interrupted again.
    pub(crate) fn over(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Writes down the stack of the thread that was interrupted, and the handler's own on top of it.
    fn write_down(&self) {
        let mut depth = 0;
        if SAFE_TO_UNWIND.get() == Some(&true) {
            // SAFETY: the crate's lock guards symbols, which are not asked for here; the unwinder itself
            // needs none (see above).
            unsafe {
                backtrace::trace_unsynchronized(|frame| {
                    self.frames[depth].store(frame.ip() as usize, Ordering::Relaxed);
                    depth += 1;
                    depth < FRAMES
                });
            }
        }
        self.depth.store(depth.max(1), Ordering::Release);
    }

    /// Called by the monitor now and then: whether the worker has come into a stall that was not found before.
    /// `switches` is the worker's present number, `due` when its timer was due.
    pub(crate) fn find(&self, switches: u64, due: Option<u64>, threshold: Duration) -> bool {
        let threshold = threshold.as_nanos() as u64;
        let now = now();
        let old = |since: u64| now.saturating_sub(since) > threshold;
        let since = self.since.load(Ordering::Relaxed);
        let noted = since != 0 && self.switches.load(Ordering::Relaxed) == switches && old(since);
        let (kind, since) = match due {
            _ if noted && self.pinned.load(Ordering::Relaxed) => {
                (StallKind::PreemptionDisabled, since)
            }
            _ if noted => (StallKind::Uninterruptible, since),
            // The handler would have disarmed it.
            Some(due) if old(due) => (StallKind::Uninterruptible, due),
            _ => return false,
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = found.is_none_or(|f| f.since != since);
        if is_new {
            *found = Some(Found { kind, since, noted, told: false });
        }
        is_new
    }

    /// Called by the reporter: what was found, unless it has been told.
    pub(crate) fn report(&self, seat: &Seat) -> Option<Stall> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = found.as_mut().filter(|found| !found.told)?;
        untold.told = true;
        let Found { kind, since, noted, .. } = *untold;
        // The monitor must not wait for what follows.
        drop(found);
        let duration = Duration::from_nanos(now().saturating_sub(since));
        let thread_name = seat.label();
        let stack = if noted { self.ask(seat) } else { system_call_of(seat) };
        Some(Stall { kind, thread_name, duration, stack })
    }

    /// Asks the handler for the stack.
    fn ask(&self, seat: &Seat) -> String {
        self.depth.store(0, Ordering::Relaxed);
        self.wanted.store(true, Ordering::Release);
        seat.signal();
        let asked = Instant::now();
        while self.depth.load(Ordering::Acquire) == 0 {
            if asked.elapsed() > PATIENCE {
                self.wanted.store(false, Ordering::Relaxed);
                return String::new();
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let depth = self.depth.load(Ordering::Acquire);
        let frames = self.frames[..depth].iter().map(|f| f.load(Ordering::Relaxed));
        describe(frames.filter(|f| *f != 0))
    }
}

/// Whether libgcc's unwinder finds its tables without a lock: with `_dl_find_object` of glibc 2.35. Found out
/// by [`prepare`].
static SAFE_TO_UNWIND: OnceLock<bool> = OnceLock::new();

/// To be called before the first handler may run: what it needs is set up here.
pub(super) fn prepare() {
    SAFE_TO_UNWIND.get_or_init(|| {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        // The unwinder's own first time.
        backtrace::trace(|_| false);
        !found.is_null()
    });
}

/// Names of functions, one a line, innermost first; those of the handler are left out.
fn describe(frames: impl Iterator<Item = usize>) -> String {
    let mut lines = String::new();
    for frame in frames {
        backtrace::resolve(frame as *mut c_void, |symbol| {
            let name = symbol.name().map_or_else(|| "?".to_owned(), |n| format!("{n:#}"));
            let _ = match (symbol.filename(), symbol.lineno()) {
                (Some(file), Some(line)) => {
                    writeln!(lines, "  {name} at {}:{line}", file.display())
                }
                _ => writeln!(lines, "  {name}"),
            };
        });
    }
    lines
}

/// What the kernel tells of a thread that is in a system call (proc_pid_syscall(5)).
fn system_call_of(seat: &Seat) -> String {
    let path = format!("/proc/self/task/{}/syscall", seat.thread());
    let Ok(line) = std::fs::read_to_string(path) else { return String::new() };
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = words.first().and_then(|w| w.parse::<i64>().ok());
    let address =
        words.last().and_then(|w| usize::from_str_radix(w.trim_start_matches("0x"), 16).ok());
    match (number, address) {
        (Some(number), Some(address)) => {
            format!("{}  in system call number {number}\n", describe(std::iter::once(address)))
        }
        _ => String::new(),
    }
}
