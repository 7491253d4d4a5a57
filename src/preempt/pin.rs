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
//! **The rule of progress.** A thread that is interrupted may hold any lock of the program's, malloc's
//! included, and waits in the run queue of the worker that it was on. So **what runs pinned, and what a
//! worker does between two green threads, neither allocates nor frees, and takes no lock that is ever held
//! by code that is not pinned.**

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};

/// A thread's count and note.
pub(crate) struct Pins {
    /// Open sections. Written by the thread alone.
    count: AtomicU32,
    /// An interruption was put off. Set by the handler, cleared by the thread or its worker.
    resched: AtomicBool,
}

thread_local! {
    static PINS: Pins = const {
        Pins { count: AtomicU32::new(0), resched: AtomicBool::new(false) }
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
        self.count.store(1, Ordering::Relaxed);
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

    /// Puts an interruption off to the end of the section. For the handler, as above.
    pub(crate) fn put_off(&self) {
        self.resched.store(true, Ordering::Relaxed);
    }
}

/// The calling thread is not interrupted while this exists. Sections nest.
///
/// A thread may still leave its worker of its own accord; the count is its own and stays.
#[must_use = "the section ends when this is dropped"]
pub(crate) struct Pin(PhantomData<*const ()>);

impl Pin {
    /// Begins a section.
    #[inline]
    pub(crate) fn new() -> Pin {
        PINS.with(|pins| {
            let count = pins.count.load(Ordering::Relaxed);
            pins.count.store(count + 1, Ordering::Relaxed);
        });
        compiler_fence(Ordering::SeqCst);
        Pin(PhantomData)
    }

    /// Ends the section of a thread that ends: nobody will interrupt it, whatever the note says.
    pub(crate) fn retire(self) {
        PINS.with(|pins| {
            pins.count.store(0, Ordering::Relaxed);
            pins.resched.store(false, Ordering::Relaxed);
        });
        std::mem::forget(self);
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        let due = PINS.with(|pins| {
            let count = pins.count.load(Ordering::Relaxed) - 1;
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

/// In a child of fork(2), whose only OS thread is a copy of the calling green thread's worker, there is nobody to switch
/// to: nothing is put off any more, and the thread is pinned for good.
pub(super) extern "C" fn settle_down() {
    PINS.with(|pins| {
        pins.resched.store(false, Ordering::Relaxed);
        pins.count.store(pins.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
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
