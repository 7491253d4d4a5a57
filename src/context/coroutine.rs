//! A slot that executes: a stack that is switched to and from, and the floating-point control words, saved on the way
//! out and loaded on the way in.
//!
//! The thread pointer is *not* switched here but by the worker, before [`Coroutine::resume`]: it must leave one thread
//! before that one is published, and enter the next only once that one is owned (see `worker`).

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

use super::pool::Slot;
use crate::arch::{self, FpControl};

/// Bytes to which the ABIs align the stack at a call.
const STACK_ALIGNMENT: usize = 16;

/// What a switch back to the worker means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left<Y> {
    /// Suspended itself with this message.
    Suspended(Y),
    /// Its body returned; it must not be resumed.
    Finished,
}

/// Where a body goes back to when it suspends itself: the stack of who resumed it last, as it was left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resumer(usize);

/// A message that passes in a register.
pub(crate) trait Message: Copy {
    /// As a word.
    fn into_word(self) -> usize;
    /// The message that became this word.
    fn from_word(word: usize) -> Self;
}

/// A body that runs on a slot, switching to its resumer and back.
#[repr(C)]
pub(crate) struct Coroutine {
    /// Where it was left, while it does not run; 0 when it has finished.
    left: usize,
    /// While it runs.
    resumer: Resumer,
    control: FpControl,
    slot: Slot,
}

/// The first function on a stack.
extern "C" fn begin<F: FnOnce(Resumer) -> Resumer>(
    resumer: usize,
    _: usize,
    body: *mut c_void,
) -> ! {
    // SAFETY: `Coroutine::new` put it there for this one call.
    let body = unsafe { body.cast::<F>().read() };
    let Resumer(resumer) = body(Resumer(resumer));
    // SAFETY: it was left by the switch that resumed this body last, which has ended with all that it borrowed. As
    // after a suspension, the worker's code there uses no thread-local until it has installed a thread's or its own.
    unsafe { arch::switch_for_good(resumer) }
}

impl Coroutine {
    /// Prepares `body` to run on `slot` with its first frame below `base`; it runs when it is resumed.
    /// `body` gets what is to be given to [`Coroutine::enter`], and returns what [`Coroutine::exit`] gives.
    ///
    /// As POSIX has it for threads, it inherits the floating-point environment of the caller.
    ///
    /// # Safety
    ///
    /// `base` lies on the slot's stack, below the thread block, with nothing in use below it. What
    /// `body` borrows is valid until it has run to its end. It does not unwind.
    pub(crate) unsafe fn new<F: FnOnce(Resumer) -> Resumer>(
        slot: Slot,
        base: NonNull<u8>,
        body: F,
    ) -> Self {
        let alignment = align_of::<F>().max(STACK_ALIGNMENT);
        let place = base.addr().get() - size_of::<F>();
        let down = base.addr().get() - (place & !(alignment - 1));
        // SAFETY: below the base there is a stack that nobody uses. The place lies in it, and is aligned for the body and
        // for frames.
        let left = unsafe {
            let place = base.sub(down);
            place.cast::<F>().write(body);
            arch::prepare(place, begin::<F>, place.as_ptr().cast())
        };
        Coroutine { left, resumer: Resumer(0), control: FpControl::current(), slot }
    }

    /// Runs the body until it suspends itself or ends.
    ///
    /// `in_force` holds the floating-point control words of the calling OS thread, and is kept up to
    /// date. Threads that change theirs are rare; comparing memory finds out without reading the
    /// registers a second time, which takes as long as the stack switch.
    ///
    /// When the body has left, its control words stay in force, and the caller goes on with them, although the compiler takes
    /// them to be unchanged. Nobody can tell: workers and helpers use no floating-point numbers.
    ///
    /// # Safety
    ///
    /// The coroutine is not running and not finished, nobody else accesses it, and the thread pointer
    /// in force is the one its body shall see.
    #[inline]
    pub(crate) unsafe fn resume<Y: Message>(
        this: NonNull<Self>,
        in_force: &Cell<FpControl>,
    ) -> Left<Y> {
        let this = this.as_ptr();
        // SAFETY: the caller has exclusive access; no reference lasts while the body runs, which uses some fields itself.
        // It was left there and not resumed since, or was prepared; its stack is in place as long as its slot is.
        unsafe {
            let control = &raw const (*this).control;
            let in_force = in_force.as_ptr();
            if !(*in_force).same_modes(&*control) {
                (*control).load();
            }
            let (left, message) = arch::switch((*this).left, 0);
            (*this).left = left;
            (*in_force).assign(&*control);
            if left == 0 { Left::Finished } else { Left::Suspended(Y::from_word(message)) }
        }
    }

    /// To be called by the body, first.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls, `resumer` what the body was given.
    pub(crate) unsafe fn enter(this: NonNull<Self>, resumer: Resumer) {
        // SAFETY: the body alone accesses the field.
        unsafe { (*this.as_ptr()).resumer = resumer };
    }

    /// Suspends the calling body until it is resumed.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls, on its own stack, after [`Coroutine::enter`].
    #[inline]
    pub(crate) unsafe fn suspend<Y: Message>(this: NonNull<Self>, message: Y) {
        let this = this.as_ptr();
        // SAFETY: the body alone accesses these fields while it runs. The resumer was left when it resumed the body.
        unsafe {
            let control = &mut (*this).control;
            control.save();
            let Resumer(resumer) = (*this).resumer;
            let (resumer, _) = arch::switch(resumer, message.into_word());
            (*this).resumer = Resumer(resumer);
        }
    }

    /// To be called by the body, last; what it is to return.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls.
    pub(crate) unsafe fn exit(this: NonNull<Self>) -> Resumer {
        // SAFETY: the body alone accesses the fields while it runs.
        unsafe {
            let control = &mut (*this.as_ptr()).control;
            control.save();
            (*this.as_ptr()).resumer
        }
    }

    /// Gets back the slot of a body that ended.
    ///
    /// # Panics
    ///
    /// Panics if it has not.
    pub(crate) fn into_slot(self) -> Slot {
        assert_eq!(self.left, 0, "a coroutine is in the middle of its body");
        self.slot
    }
}
