//! Sections that must not be interrupted.
//!
//! **Problem.** A green thread that is in the middle of the runtime's own business (it holds a spin
//! lock, it refers to the worker that it is on) must not be switched away from. The signal handler has
//! to know, whatever the instruction that it interrupted.
//!
//! **Choice.** A count, as a kernel's `preempt_count`, in thread-local storage of the green thread: two
//! plain instructions to raise it, three to lower it, no atomic one. The handler, which runs on the same
//! OS thread, finds it through the control block. What it could not do it leaves as a note, and the
//! thread does it when the count returns to zero. On threads that are not green the count means nothing.
//!
//! **The race.** Raising and lowering are not atomic with respect to the handler, and need not be: the
//! handler only reads the count and only sets the note. When a section ends, the count is written
//! before the note is read. If the handler comes before the write, its note is found; if after, it
//! sees a count of zero and needs no note. Handler and thread are on one OS thread, so that compiler
//! fences are all it takes.
//!
//! **In a signal handler of the program's** a section may end, too: of a function of the C library's that this crate defines.
//! What it finds may be the note of the section that the handler has interrupted, between the write of the count and the
//! look at the note; or one that came between the two steps of [`Pins::disown`]. The thread must not leave then, since the
//! handler's end gives *this* OS thread its mask and its alternate stack back. So the note stays for the next section
//! that ends after the handler. Nobody waits for that: when the note was made the timer was set, on helpers the monitor
//! tries again, and an interruption that finds the thread unpinned needs no note.
//!
//! **Whose code was interrupted** is asked by functions that handlers of the program's may call and that want the runtime's
//! locks or its worker's state ([`is_at_large`]). So the runtime's sections and those of the program's
//! ([`without_preemption`](crate::without_preemption)), which do not matter for that, are counted apart, in one word. And
//! it takes more than the count: a worker needs no sections, and works with the thread block of one of its threads in force.
//! But a green thread that has begun is pinned when it leaves its worker, until it is back, and to its end. One that has
//! not begun has nothing but zeros in its block, for which nobody vouches.
//!
//! **The rule of progress.** A thread that is interrupted may hold any lock of the program's, malloc's
//! included, and waits in the run queue of the worker that it was on. So **what runs pinned, and what a
//! worker does between two green threads, neither allocates nor frees, and takes no lock that is ever held
//! by code that is not pinned.**

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, compiler_fence};

use crate::context::tls;

/// What a section of the runtime's adds to the count, and one of the program's. So many of the latter in each other that they
/// look like one of the runtime's do no harm.
const RUNTIMES: u32 = 1 << 16;
const PROGRAMS: u32 = 1;

/// A thread's count and note.
pub(crate) struct Pins {
    /// Open sections. Written by the thread alone.
    count: AtomicU32,
    /// An interruption was put off. Set by the handler, cleared by the thread or its worker.
    resched: AtomicBool,
    /// Who works in this thread block.
    user: AtomicU8,
}

/// Nobody knows.
const UNKNOWN: u8 = 0;
/// Its thread, or the runtime in a section of that thread.
const THREAD: u8 = 1;
/// A worker without sections.
const WORKER: u8 = 2;

thread_local! {
    static PINS: Pins = const {
        Pins {
            count: AtomicU32::new(0),
            resched: AtomicBool::new(false),
            user: AtomicU8::new(UNKNOWN),
        }
    };
}

impl Pins {
    /// The calling thread's; they stay where they are until the thread ends.
    pub(crate) fn own() -> *const Pins {
        PINS.with(std::ptr::from_ref)
    }

    /// Opens a section on behalf of the thread, which is not pinned. For the handler, as below; ended by
    /// [`Pins::disown`].
    pub(crate) fn adopt(&self) {
        self.count.store(RUNTIMES, Ordering::Relaxed);
    }

    /// What to set to zero in order to end the section that [`Pins::adopt`] opened, once a new
    /// interruption does no harm. A note that is left until then is found when the next section ends.
    pub(crate) fn disown(&self) -> *mut u32 {
        self.resched.store(false, Ordering::Relaxed);
        self.count.as_ptr()
    }

    /// Whether the thread is in such a section. For the handler, on the thread's OS thread.
    pub(crate) fn is_pinned(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// Whether they are an OS thread's that is no worker, of which nothing is known yet; from now on it is. Not inlined: it
    /// is asked once for each thread.
    #[cold]
    fn is_of_os_thread(&self) -> bool {
        let is_new = self.user.load(Ordering::Relaxed) == UNKNOWN && tls::is_of_os_thread();
        if is_new {
            self.user.store(THREAD, Ordering::Relaxed);
        }
        is_new
    }

    /// Puts an interruption off to the end of the section. For the handler, as above.
    pub(crate) fn put_off(&self) {
        self.resched.store(true, Ordering::Relaxed);
    }
}

/// The calling thread is not interrupted while this exists. Sections nest.
///
/// A thread may still leave its worker of its own accord; the count is its own and stays.
#[must_use = "the section ends when this is dropped"]
pub(crate) struct Pin<const WEIGHT: u32 = RUNTIMES>(PhantomData<*const ()>);

impl Pin {
    /// Begins a section of the runtime's.
    #[inline]
    pub(crate) fn new() -> Pin {
        Pin::begin()
    }

    /// The section of a thread that ends has no end: what follows is its worker's affair. The next occupant of its thread
    /// block gets a new one.
    pub(crate) fn retire(self) {
        std::mem::forget(self);
    }
}

impl Pin<PROGRAMS> {
    /// Begins a section in which nothing is done but what the program does.
    #[inline]
    pub(crate) fn of_program() -> Self {
        Self::begin()
    }
}

impl<const WEIGHT: u32> Pin<WEIGHT> {
    #[inline]
    fn begin() -> Self {
        PINS.with(|pins| {
            let count = pins.count.load(Ordering::Relaxed);
            pins.count.store(count + WEIGHT, Ordering::Relaxed);
        });
        compiler_fence(Ordering::SeqCst);
        Pin(PhantomData)
    }
}

impl<const WEIGHT: u32> Drop for Pin<WEIGHT> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        let due = PINS.with(|pins| {
            let count = pins.count.load(Ordering::Relaxed) - WEIGHT;
            pins.count.store(count, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            count == 0 && pins.resched.load(Ordering::Relaxed)
        });
        if due {
            catch_up();
        }
    }
}

/// Whether the calling thread is in such a section.
#[inline]
pub(crate) fn is_pinned() -> bool {
    PINS.with(Pins::is_pinned)
}

/// Whether the caller is on top of no code of the runtime's, in a signal handler that has interrupted it least of all. (If
/// it says no it may nevertheless be so: where green threads share their worker's thread block it always is the worker's.)
///
/// Async-signal-safe.
#[inline]
#[cfg_attr(any(not(feature = "interpose"), loom), expect(dead_code))]
pub(crate) fn is_at_large() -> bool {
    PINS.with(|pins| {
        pins.count.load(Ordering::Relaxed) < RUNTIMES
            && (pins.user.load(Ordering::Relaxed) == THREAD || pins.is_of_os_thread())
    })
}

/// The calling green thread, which has a thread block of its own, begins.
pub(crate) fn begin() {
    PINS.with(|pins| pins.user.store(THREAD, Ordering::Relaxed));
}

/// Calls `f`, in which the calling OS thread is a worker: nobody can tell what it is doing.
pub(crate) fn working<R>(f: impl FnOnce() -> R) -> R {
    PINS.with(|pins| pins.user.store(WORKER, Ordering::Relaxed));
    let result = f();
    PINS.with(|pins| pins.user.store(THREAD, Ordering::Relaxed));
    result
}

/// In a child of fork(2), whose only OS thread is a copy of the calling green thread's worker, there is nobody to switch
/// to: nothing is put off any more, and the thread is pinned for good.
pub(super) extern "C" fn settle_down() {
    PINS.with(|pins| {
        pins.resched.store(false, Ordering::Relaxed);
        pins.count.store(pins.count.load(Ordering::Relaxed) + RUNTIMES, Ordering::Relaxed);
    });
}

/// Does what was put off; not in a signal handler. (Notes are made on OS threads that have an alternate stack, so that
/// the absence of one tells.)
#[cold]
fn catch_up() {
    if super::in_signal_handler() {
        return;
    }
    PINS.with(|pins| pins.resched.store(false, Ordering::Relaxed));
    crate::worker::reschedule();
}

#[cfg(all(test, not(loom), target_arch = "x86_64"))]
mod tests {
    use super::*;

    static STAYED: AtomicBool = AtomicBool::new(false);

    fn is_noted() -> bool {
        PINS.with(|pins| pins.resched.load(Ordering::Relaxed))
    }

    /// Ends a section with a note, which stays.
    extern "C" fn end_section(_signal: libc::c_int) {
        let pin = Pin::new();
        PINS.with(Pins::put_off);
        drop(pin);
        STAYED.store(is_noted(), Ordering::Relaxed);
    }

    #[test]
    fn a_section_that_ends_in_a_signal_handler_leaves_the_note_for_the_next_one() {
        let runtime = crate::Runtime::builder().workers(1).build().unwrap();
        if runtime.preemption().is_err() {
            return;
        }
        // SAFETY: integers; the handler does nothing but to look at thread-locals and to ask for the alternate stack.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = end_section as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
        }
        runtime.run(|| {
            // SAFETY: the signal is handled, before the call returns. (It is for the calling OS thread, and masks are as usual
            // again when the C library's function ends.)
            assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
            drop(Pin::new());
            assert!(STAYED.load(Ordering::Relaxed), "the thread has left in a handler");
            assert!(!is_noted(), "the next section has not found it");
        });
    }
}
