//! Seats: the OS threads on which green threads run, as the signal's handler sees them.
//!
//! **How a signal finds its seat.** The handler may use no thread-local storage that could be lazily
//! allocated, and whose thread block is in force is part of the question. The signal itself carries a
//! token, an index into a static table, and the kernel's number of the OS thread tells whether the seat found
//! there is its own.
//!
//! **In the middle of a handler of the program's** a thread must not be moved: returning from it restores
//! the alternate stack and the mask of the OS thread on which it began. The alternate stack tells: while any
//! handler runs there is none ([`AlternateStack`]), so that this one, which asks for it, finds itself on it only
//! if it has interrupted no other.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::pin::Pins;
use super::probe::{Missed, Probe, Snapshot};
use crate::arch::{Interrupted, Position};
use crate::context::overflow::AlternateStack;
use crate::context::stack::Stack;

/// The signal of ticks and of the monitor. Programs rarely use it, debuggers pass it on without stopping,
/// and its default is to be ignored; for these reasons Go's runtime chose it, too.
pub(super) const SIGNAL: libc::c_int = libc::SIGURG;

/// What the handler must know of a green thread. Part of its control block.
pub(crate) struct Subject {
    stack: Stack,
    /// Its count of pins; null before the thread begins and after it has ended.
    pins: AtomicPtr<Pins>,
    /// The beginning of its name, for reports by others: control blocks stay readable when they are gone.
    label: [AtomicU64; LABEL_WORDS],
}

const LABEL_WORDS: usize = 3;

impl Subject {
    pub(crate) fn new(stack: Stack, name: Option<&str>) -> Subject {
        let mut bytes = [0_u8; LABEL_WORDS * 8];
        if let Some(name) = name {
            let end = name.floor_char_boundary(bytes.len());
            bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        }
        let label = std::array::from_fn(|i| {
            let word = bytes[i * 8..][..8].try_into().expect("eight bytes were asked for");
            AtomicU64::new(u64::from_ne_bytes(word))
        });
        Subject { stack, pins: AtomicPtr::new(std::ptr::null_mut()), label }
    }

    pub(crate) fn stack(&self) -> Stack {
        self.stack
    }

    /// The calling thread, whose subject this is, can be interrupted from now on.
    pub(crate) fn begin(&self) {
        compiler_fence(Ordering::SeqCst);
        self.pins.store(Pins::own().cast_mut(), Ordering::Relaxed);
    }

    /// The calling thread cannot be interrupted any more.
    pub(crate) fn end(&self) {
        self.pins.store(std::ptr::null_mut(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// The beginning of the thread's name, if it has one.
    fn label(&self) -> Option<String> {
        let words = self.label.each_ref().map(|w| w.load(Ordering::Relaxed).to_ne_bytes());
        let bytes = words.concat();
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }
}

/// A system call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemCall {
    pub(crate) number: i64,
    /// Where it was made. The frame pointer is unknown.
    pub(crate) at: Position,
}

/// Why a thread cannot be interrupted at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is pinned. It finds a note when it is no longer.
    Pinned,
    /// No green thread was interrupted, or one that begins, ends, or makes a detour.
    Elsewhere,
    /// It has blocked other signals than its worker, or is in a signal handler.
    SignalsBlocked,
    /// Its stack has no room for its registers.
    NoRoom,
}

/// What the host of a seat wants of a thread that can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Stay,
    /// It leaves; the word is passed on to `uthread_interrupted`.
    Leave(usize),
}

/// Who decides about the threads on a seat. All functions are called by the signal's handler, on the seat's
/// OS thread, and must be async-signal-safe.
pub(crate) trait Host {
    /// The seat was signalled; whether by the timer.
    fn signalled(&self, by_timer: bool);

    /// The thread can be interrupted here; no code of the runtime's was interrupted. Whether it is in
    /// a system call that waits.
    fn judge(&self, in_system_call: bool) -> Verdict;

    /// The thread cannot be interrupted here.
    fn refused(&self, why: Refusal);
}

/// See the module's documentation.
pub(crate) struct Seat {
    // Written and read on the seat's OS thread only, by the loop and by the handler:
    running: AtomicPtr<Subject>,
    // Fixed when the seat is taken:
    host: OnceLock<HostPointer>,
    thread: AtomicI32,
    /// The signals that the OS thread blocks when nobody has changed that.
    usual_mask: AtomicU64,
    token: AtomicUsize,
    probe: Probe,
}

struct HostPointer(*const dyn Host);

// SAFETY: hosts are shared objects (`Worker`, `Helper`) that outlive their seats.
unsafe impl Send for HostPointer {}
// SAFETY: as above.
unsafe impl Sync for HostPointer {}

/// An entry of the table.
struct Place {
    /// Null if it is free.
    seat: AtomicPtr<Seat>,
    /// The kernel's number of the seat's OS thread; 0 if it is free.
    thread: AtomicI32,
    /// The OS thread's alternate stack, as two addresses.
    low: AtomicUsize,
    high: AtomicUsize,
}

/// Seats that are taken, by token − 1.
static TABLE: [Place; SEATS] = [const {
    Place {
        seat: AtomicPtr::new(std::ptr::null_mut()),
        thread: AtomicI32::new(0),
        low: AtomicUsize::new(0),
        high: AtomicUsize::new(0),
    }
}; SEATS];
/// The most workers and helpers that a process can have.
const SEATS: usize = 4096;
/// Places at the front of the table that were ever taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Seat {
    pub(crate) fn new() -> Seat {
        Seat {
            running: AtomicPtr::new(std::ptr::null_mut()),
            host: OnceLock::new(),
            thread: AtomicI32::new(0),
            usual_mask: AtomicU64::new(0),
            token: AtomicUsize::new(0),
            probe: Probe::new(),
        }
    }

    /// The calling OS thread, on whose alternate stack handlers run, takes the seat. The signal is unblocked.
    ///
    /// # Errors
    ///
    /// All seats of the process are taken.
    ///
    /// # Safety
    ///
    /// Seat and host stay where they are until [`Seat::give_up`], which the same OS thread calls.
    pub(crate) unsafe fn take(
        &self,
        host: *const (dyn Host + 'static),
        handlers: &AlternateStack,
    ) -> io::Result<()> {
        install_handler()?;
        let mut signal = SigSet::empty();
        signal.add(Signal::SIGURG);
        signal.thread_unblock()?;
        let usual = SigSet::thread_get_mask()?;
        // SAFETY: the kernel's set is the first 64 bits.
        let usual = unsafe { std::ptr::from_ref(usual.as_ref()).cast::<u64>().read() };
        self.usual_mask.store(usual, Ordering::Relaxed);
        // SAFETY: gettid has no preconditions.
        self.thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
        self.host.get_or_init(|| HostPointer(host));
        let this = std::ptr::from_ref(self).cast_mut();
        let take = |place: &Place| {
            place.seat.compare_exchange(
                std::ptr::null_mut(),
                this,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
        };
        let index = TABLE.iter().position(|place| take(place).is_ok()).ok_or_else(|| {
            io::Error::other(format!("more than {SEATS} workers and helpers in one process"))
        })?;
        TAKEN.fetch_max(index + 1, Ordering::Relaxed);
        let range = handlers.range();
        TABLE[index].low.store(range.start, Ordering::Relaxed);
        TABLE[index].high.store(range.end, Ordering::Relaxed);
        TABLE[index].thread.store(self.thread(), Ordering::Relaxed);
        self.token.store(index + 1, Ordering::Relaxed);
        Ok(())
    }

    /// The OS thread leaves. Signals that are still under way find nobody.
    pub(crate) fn give_up(&self) {
        let token = self.token.swap(0, Ordering::Relaxed);
        if token != 0 {
            let place = &TABLE[token - 1];
            place.thread.store(0, Ordering::Relaxed);
            place.seat.store(std::ptr::null_mut(), Ordering::Release);
        }
    }

    /// The kernel's number of the OS thread.
    pub(super) fn thread(&self) -> libc::pid_t {
        self.thread.load(Ordering::Relaxed)
    }

    /// What a signal must carry to find the seat.
    pub(super) fn token(&self) -> *mut libc::c_void {
        std::ptr::without_provenance_mut(self.token.load(Ordering::Relaxed))
    }

    /// The thread that runs next, or none: its stack may be in use from now on.
    #[inline]
    pub(crate) fn seats(&self, subject: Option<&Subject>) {
        let subject = subject.map_or(std::ptr::null(), std::ptr::from_ref);
        self.running.store(subject.cast_mut(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Blocks the signals again that the OS thread usually blocks, and no others, and gives it its alternate stack
    /// back, which is gone if a handler was left by longjmp(3). To be called on it, when no thread runs.
    pub(crate) fn restore(&self) {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the kernel's set is the first 64 bits of one that is otherwise empty; the call reads it.
        unsafe {
            set.as_mut_ptr().cast::<u64>().write(self.usual_mask.load(Ordering::Relaxed));
            libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
        }
        let Some(place) = TABLE.get(self.token.load(Ordering::Relaxed).wrapping_sub(1)) else {
            return;
        };
        AlternateStack::restore(
            place.low.load(Ordering::Relaxed)..place.high.load(Ordering::Relaxed),
        );
    }

    /// Whether a thread runs or is about to.
    pub(crate) fn is_taken(&self) -> bool {
        !self.running.load(Ordering::Relaxed).is_null()
    }

    /// The beginning of the name of the thread that runs now, or did a moment ago. From any OS thread.
    pub(super) fn label(&self) -> Option<String> {
        // SAFETY: control blocks lie in slabs, which are never unmapped; the label consists of atomic words,
        // of which old or foreign ones do no harm.
        unsafe { self.running.load(Ordering::Relaxed).as_ref() }?.label()
    }

    /// The address of what is known of the thread that runs now, or did a moment ago; 0 if none does.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed).addr()
    }

    /// The stack of the thread that runs now, if the OS thread can be interrupted.
    ///
    /// # Errors
    ///
    /// See [`Missed`].
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Missed> {
        if self.token().is_null() || super::available().is_err() {
            // Nobody listens, or the handler could not tell.
            return Err(Missed::Silent);
        }
        self.probe.ask(self)
    }

    /// What the OS thread is blocked in, as the kernel tells it (proc_pid_syscall(5)).
    pub(crate) fn system_call(&self) -> Option<SystemCall> {
        let path = format!("/proc/self/task/{}/syscall", self.thread());
        let line = std::fs::read_to_string(path).ok()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let hexadecimal =
            |word: &str| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let [number, .., sp, pc] = words[..] else { return None };
        let at = Position { pc: hexadecimal(pc)?, sp: hexadecimal(sp)?, bp: 0 };
        Some(SystemCall { number: number.parse().ok()?, at })
    }

    /// Signals the seat's OS thread, from any thread.
    pub(crate) fn signal(&self) {
        let (thread, token) = (self.thread(), self.token());
        if token.is_null() {
            return;
        }
        /// The kernel's `siginfo_t` for `SI_QUEUE` on 64-bit machines.
        #[repr(C)]
        struct Info {
            signal: i32,
            errno: i32,
            code: i32,
            padding: i32,
            pid: i32,
            uid: u32,
            value: *mut libc::c_void,
            rest: [u64; 12],
        }
        // SAFETY: getpid and getuid have no preconditions. The structure is as large as the kernel's
        // (128 bytes) and stays valid during the call. A thread that is gone is an error, which is as good.
        unsafe {
            let pid = libc::getpid();
            let info = Info {
                signal: SIGNAL,
                errno: 0,
                code: libc::SI_QUEUE,
                padding: 0,
                pid,
                uid: libc::getuid(),
                value: token,
                rest: [0; 12],
            };
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, thread, SIGNAL, &raw const info);
        }
    }

    /// The one predicate: the pins of the thread that may be interrupted here, or why none may. See the
    /// documentation of [`super`].
    fn examine(&self, interrupted: &Interrupted) -> Result<&Pins, Refusal> {
        // SAFETY: the pointer was set on this OS thread by its loop. Either the thread named runs here, then it
        // exists; or the loop was interrupted between two threads, then the control block is at least
        // readable, and the stack pointer is not on that thread's stack.
        let subject = unsafe { self.running.load(Ordering::Relaxed).as_ref() };
        let subject = subject.ok_or(Refusal::Elsewhere)?;
        if !subject.stack.contains(interrupted.stack_pointer()) || interrupted.is_on_detour() {
            return Err(Refusal::Elsewhere);
        }
        // SAFETY: the pins of a thread that has begun and not ended, and on whose stack this OS thread is.
        let pins = unsafe { subject.pins.load(Ordering::Relaxed).as_ref() };
        let pins = pins.ok_or(Refusal::Elsewhere)?;
        if pins.is_pinned() {
            pins.put_off();
            return Err(Refusal::Pinned);
        }
        if interrupted.blocked_signals() != self.usual_mask.load(Ordering::Relaxed) {
            return Err(Refusal::SignalsBlocked);
        }
        if interrupted.detour_floor() < subject.stack.limit() {
            return Err(Refusal::NoRoom);
        }
        Ok(pins)
    }

    /// The signal has come; `None` in the middle of a handler of the program's, and where there are no detours.
    fn interrupted(&self, interrupted: Option<Interrupted>, by_timer: bool) {
        let host = self.host.get().expect("a seat in the table has a host");
        // SAFETY: the host outlives the seat.
        let host = unsafe { &*host.0 };
        host.signalled(by_timer);
        // SAFETY: as in `examine`.
        let running = unsafe { self.running.load(Ordering::Relaxed).as_ref() };
        self.probe.answer(running, interrupted.as_ref().map(Interrupted::place));
        let Some(mut interrupted) = interrupted else {
            return host.refused(Refusal::SignalsBlocked);
        };
        match self.examine(&interrupted) {
            Err(why) => host.refused(why),
            Ok(pins) => {
                if let Verdict::Leave(word) = host.judge(interrupted.in_system_call()) {
                    pins.adopt();
                    // SAFETY: `on_signal` makes what was interrupted known only where detours are available;
                    // `examine` found that there is room, and the thread is where the ABI lets functions be
                    // called, below the red zone. Words are those of `Leave` that hosts give for interrupted
                    // threads, small numbers.
                    unsafe { interrupted.detour(word) };
                }
            }
        }
    }
}

/// What was done with the signal before.
static PREVIOUS: OnceLock<SigAction> = OnceLock::new();

/// Installs the handler, once per process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), nix::Error>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        super::stall::prepare();
        // Calls that can be restarted are. No other handler runs on top of this one, which is short.
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::all());
        // SAFETY: the functions need no more than the calling thread.
        unsafe {
            libc::pthread_atfork(None, None, Some(super::pin::settle_down));
            #[cfg(all(feature = "interpose", not(loom)))]
            libc::pthread_atfork(None, None, Some(crate::interpose::forget_waiters));
        }
        // SAFETY: the handler is async-signal-safe: it uses atomic words, the clock and timer_settime.
        let previous = unsafe { sigaction(Signal::SIGURG, &action) }?;
        let _ = PREVIOUS.set(previous);
        Ok(())
    });
    installed.map_err(io::Error::from)
}

/// The seat of the calling OS thread, and whether it is on the seat's alternate stack. `token` tells where to
/// look first.
fn own_seat(token: usize) -> Option<(&'static Seat, bool)> {
    // SAFETY: gettid has no preconditions.
    let (here, thread) = (0_u8, unsafe { libc::gettid() });
    // What says that it is of this OS thread was written by it, and only it can empty the place.
    let is_own = |place: &&Place| place.thread.load(Ordering::Relaxed) == thread;
    let told = TABLE.get(token.wrapping_sub(1)).filter(is_own);
    let place = told.or_else(|| TABLE.iter().take(TAKEN.load(Ordering::Relaxed)).find(is_own))?;
    let low = place.low.load(Ordering::Relaxed);
    let stack = low..place.high.load(Ordering::Relaxed);
    // SAFETY: the seat exists until this OS thread takes it out of the table.
    let seat = unsafe { place.seat.load(Ordering::Relaxed).as_ref() }?;
    Some((seat, stack.contains(&std::ptr::from_ref(&here).addr())))
}

extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo; the value is read only with the codes that come with one.
    let (code, token, sender) = unsafe {
        let code = (*info).si_code;
        let ours = code == libc::SI_TIMER || code == libc::SI_QUEUE;
        (code, if ours { (*info).si_value().sival_ptr.addr() } else { 0 }, (*info).si_pid())
    };
    // When the limit on pending signals is reached (RLIMIT_SIGPENDING), a signal comes without its information,
    // as if from nobody (`__send_signal_locked` in the kernel).
    let stripped = code == libc::SI_USER && sender == 0;
    if (token != 0 || stripped)
        && let Some((seat, on_alternate_stack)) = own_seat(token)
    {
        let _errno = super::KeepErrno::new();
        let is_known = on_alternate_stack && super::available().is_ok();
        // (It is known since the runtime started: nobody is waited for.)
        // SAFETY: it is the handler's argument, and detours are available.
        let interrupted = is_known.then(|| unsafe { Interrupted::new(context) });
        seat.interrupted(interrupted, code == libc::SI_TIMER);
        return;
    }
    let Some(previous) = PREVIOUS.get() else { return };
    match previous.handler() {
        // SAFETY: that is what the kernel would have called.
        SigHandler::SigAction(f) => f(signal, info, context),
        SigHandler::Handler(f) => f(signal),
        SigHandler::SigDfl | SigHandler::SigIgn => {}
    }
}
