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
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::seat::Seat;
use crate::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
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

/// A thread that cannot be interrupted. Written by the handler of one worker, read by the monitor.
///
/// The three words belong together. So `since` is taken away before the others are changed, and put back
/// afterwards; a reader that finds the same before and after it has read them, has read what belongs to it.
struct Note {
    /// When the handler first found that, 0 if it has not.
    since: AtomicU64,
    /// The number of switches then, which tells whether that thread is still the present one.
    switches: AtomicU64,
    /// Whether it was pinned then.
    pinned: AtomicBool,
}

impl Note {
    fn new() -> Note {
        Note {
            since: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
        }
    }

    /// Notes it unless it is noted already.
    fn take(&self, switches: u64, pinned: bool, now: impl FnOnce() -> u64) {
        if self.since.load(Ordering::Relaxed) == 0
            || self.switches.load(Ordering::Relaxed) != switches
        {
            self.since.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            self.switches.store(switches, Ordering::Relaxed);
            self.pinned.store(pinned, Ordering::Relaxed);
            self.since.store(now(), Ordering::Release);
        }
    }

    fn discard(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Since when a worker that has made so many switches cannot interrupt its thread, and whether that is pinned.
    fn read(&self, switches: u64) -> Option<(u64, bool)> {
        let since = self.since.load(Ordering::Acquire);
        let is_present = self.switches.load(Ordering::Relaxed) == switches;
        let pinned = self.pinned.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole = since != 0 && self.since.load(Ordering::Relaxed) == since;
        (is_whole && is_present).then_some((since, pinned))
    }
}

/// A stack that the reporter asks the handler for.
struct Answer<const MOST: usize> {
    /// The reporter asks.
    wanted: AtomicBool,
    /// So many addresses. 0 until they are written.
    depth: AtomicUsize,
    frames: [AtomicUsize; MOST],
}

impl<const MOST: usize> Answer<MOST> {
    fn new() -> Self {
        Answer {
            wanted: AtomicBool::new(false),
            depth: AtomicUsize::new(0),
            frames: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }

    /// Called by the reporter; it must signal the handler afterwards.
    fn ask(&self) {
        self.depth.store(0, Ordering::Relaxed);
        self.wanted.store(true, Ordering::Release);
    }

    /// The reporter has lost its patience.
    fn give_up(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Called by the handler: whether it is asked, and must [`Answer::write`].
    fn is_wanted(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Acquire);
        if wanted {
            self.wanted.store(false, Ordering::Relaxed);
        }
        wanted
    }

    /// `trace` calls what it is given with each address, for as long as that is true.
    fn write(&self, trace: impl FnOnce(&mut dyn FnMut(usize) -> bool)) {
        let mut depth = 0;
        trace(&mut |address| {
            self.frames[depth].store(address, Ordering::Relaxed);
            depth += 1;
            depth < MOST
        });
        self.depth.store(depth.max(1), Ordering::Release);
    }

    /// What was written, once it is.
    fn read(&self) -> Option<impl Iterator<Item = usize>> {
        let depth = self.depth.load(Ordering::Acquire);
        let frames = self.frames[..depth].iter().map(|f| f.load(Ordering::Relaxed));
        (depth != 0).then_some(frames)
    }
}

/// What handler, monitor and reporter tell each other about one worker.
pub(crate) struct Stalls {
    note: Note,
    stack: Answer<FRAMES>,
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
        Stalls { note: Note::new(), stack: Answer::new(), found: Mutex::new(None) }
    }

    /// The handler has found that a thread cannot be interrupted, since it is pinned or for another reason,
    /// after so many switches of its worker.
    pub(crate) fn note(&self, switches: u64, pinned: bool) {
        self.note.take(switches, pinned, now);
        if self.stack.is_wanted() {
            self.write_down();
        }
    }

    /// The thread can be interrupted again.
    pub(crate) fn over(&self) {
        self.note.discard();
    }

    /// Writes down the stack of the thread that was interrupted, and the handler's own on top of it.
    fn write_down(&self) {
        self.stack.write(|address| {
            if SAFE_TO_UNWIND.get() == Some(&true) {
                // SAFETY: the crate's lock guards symbols, which are not asked for here; the unwinder itself
                // needs none (see above).
                unsafe { backtrace::trace_unsynchronized(|frame| address(frame.ip() as usize)) };
            }
        });
    }

    /// Called by the monitor now and then: whether the worker has come into a stall that was not found before.
    /// `switches` is the worker's present number, `due` when its timer was due.
    pub(crate) fn find(&self, switches: u64, due: Option<u64>, threshold: Duration) -> bool {
        let threshold = threshold.as_nanos() as u64;
        let now = now();
        let old = |since: u64| now.saturating_sub(since) > threshold;
        let note = self.note.read(switches).filter(|(since, _)| old(*since));
        let (kind, since) = match (note, due) {
            (Some((since, true)), _) => (StallKind::PreemptionDisabled, since),
            (Some((since, false)), _) => (StallKind::Uninterruptible, since),
            // The handler would have disarmed it.
            (None, Some(due)) if old(due) => (StallKind::Uninterruptible, due),
            _ => return false,
        };
        let noted = note.is_some();
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
        self.stack.ask();
        seat.signal();
        let asked = Instant::now();
        loop {
            if let Some(frames) = self.stack.read() {
                return describe(frames.filter(|f| *f != 0));
            }
            if asked.elapsed() > PATIENCE {
                self.stack.give_up();
                return String::new();
            }
            std::thread::sleep(Duration::from_micros(100));
        }
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

/// What the kernel tells of a thread that is in a system call.
fn system_call_of(seat: &Seat) -> String {
    seat.system_call().map_or_else(String::new, |call| {
        let frame = describe(std::iter::once(call.at.pc));
        format!("{frame}  in system call number {}\n", call.number)
    })
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn a_note_is_read_whole_or_not_at_all() {
        loom::model(|| {
            let note = Arc::new(Note::new());
            // Of an earlier stall, which nobody declared over.
            note.take(1, false, || 100);
            let handler = note.clone();
            let thread = loom::thread::spawn(move || {
                handler.take(2, true, || 200);
                handler.take(2, true, || unreachable!("it is noted already"));
            });
            let now = [note.read(2), note.read(2)];
            assert!(now.iter().flatten().all(|n| *n == (200, true)), "a stall that never was");
            assert!(now[0].is_none() || now[1].is_some());
            assert!(note.read(1).is_none_or(|n| n == (100, false)), "a stall that never was");
            thread.join().unwrap();
            assert_eq!(note.read(2), Some((200, true)));
            note.discard();
            assert_eq!(note.read(2), None);
        });
    }

    #[test]
    fn a_stack_is_read_as_it_was_written_after_it_was_asked_for() {
        loom::model(|| {
            let answer = Arc::new(Answer::<2>::new());
            answer.write(|address| assert!(address(1) && !address(2)));
            let handler = answer.clone();
            answer.ask();
            let thread = loom::thread::spawn(move || {
                // The signal.
                assert!(handler.is_wanted());
                handler.write(|address| assert!(address(3) && !address(4)));
                assert!(!handler.is_wanted(), "asked once");
            });
            let early: Option<Vec<usize>> = answer.read().map(Iterator::collect);
            assert!(early.is_none_or(|frames| frames == [3, 4]), "half an answer, or an old one");
            thread.join().unwrap();
            let frames: Vec<usize> = answer.read().into_iter().flatten().collect();
            assert_eq!(frames, [3, 4]);
        });
    }
}
