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

/// Does what was put off.
#[cold]
fn catch_up() {
    PINS.with(|pins| pins.resched.store(false, Ordering::Relaxed));
    crate::worker::reschedule();
}
