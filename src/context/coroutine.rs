//! A slot that executes: corosensei's stack switch, plus what it leaves to others.
//!
//! corosensei switches stack and callee-saved registers, and links the stacks in the unwind tables, so
//! that backtraces run from a green thread through to its worker. Added here are the floating-point
//! control words, saved on the way out and loaded on the way in. The thread pointer is *not* switched
//! here but by the worker, before [`Coroutine::resume`]: it must leave one thread before that one is
//! published, and enter the next only once that one is owned (see `worker`).

use std::cell::Cell;
use std::num::NonZero;
use std::ptr::NonNull;

use corosensei::stack::StackPointer;
use corosensei::{CoroutineResult, Yielder};

use super::pool::Slot;
use crate::arch::FpControl;

/// The part of a slot's stack that frames use.
struct Frames {
    slot: Slot,
    base: NonZero<usize>,
}

// SAFETY: the range lies in a stack with a guard page at its low end, is as large as the smallest
// stack less its thread block, and belongs to the slot that is held.
unsafe impl corosensei::stack::Stack for Frames {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        NonZero::new(self.slot.stack.limit()).expect("stacks do not lie at address 0")
    }
}

/// What a switch back to the worker means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left<Y> {
    /// Suspended itself with this message.
    Suspended(Y),
    /// Its body returned; it must not be resumed.
    Finished,
}

/// A body that runs on a slot, switching to its resumer and back.
pub(crate) struct Coroutine<Y> {
    inner: corosensei::Coroutine<(), Y, (), Frames>,
    /// Its own end of the switch, once it has run.
    yielder: Option<NonNull<Yielder<(), Y>>>,
    control: FpControl,
}

impl<Y> Coroutine<Y> {
    /// Prepares `body` to run on `slot` with its first frame below `base`; it runs when it is resumed.
    /// `body` gets the coroutine's own end of the switch, to be given to [`Coroutine::enter`].
    ///
    /// As POSIX has it for threads, it inherits the floating-point environment of the caller.
    ///
    /// # Safety
    ///
    /// `base` lies on the slot's stack, below the thread block, with nothing in use below it. What
    /// `body` borrows is valid until it has run to its end. It does not unwind.
    pub(crate) unsafe fn new(
        slot: Slot,
        base: NonNull<u8>,
        body: impl FnOnce(NonNull<Yielder<(), Y>>),
    ) -> Self {
        let base = NonZero::new(base.as_ptr() as usize & !(corosensei::stack::STACK_ALIGNMENT - 1));
        let frames = Frames { slot, base: base.expect("stacks do not lie at address 0") };
        // SAFETY: the caller says that borrows last.
        let inner = unsafe {
            corosensei::Coroutine::with_stack_unchecked(frames, move |yielder, ()| {
                body(NonNull::from(yielder))
            })
        };
        Coroutine { inner, yielder: None, control: FpControl::current() }
    }

    /// Runs the body until it suspends itself or ends.
    ///
    /// `in_force` holds the floating-point control words of the calling OS thread, and is kept up to
    /// date. Threads that change theirs are rare; comparing memory finds out without reading the
    /// registers a second time, which takes as long as the stack switch.
    ///
    /// # Safety
    ///
    /// The coroutine is not running and not finished, nobody else accesses it, and the thread pointer
    /// in force is the one its body shall see.
    #[inline]
    pub(crate) unsafe fn resume(this: NonNull<Self>, in_force: &Cell<FpControl>) -> Left<Y> {
        let this = this.as_ptr();
        // SAFETY: the caller has exclusive access. The body refers to `yielder` and `control` while it
        // runs, `resume` to `inner` only, so the references are to different fields.
        unsafe {
            let control = &raw const (*this).control;
            let in_force = in_force.as_ptr();
            if !(*in_force).same_modes(&*control) {
                (*control).load();
            }
            let inner = &mut (*this).inner;
            let result = inner.resume(());
            (*in_force).assign(&*control);
            match result {
                CoroutineResult::Yield(message) => Left::Suspended(message),
                CoroutineResult::Return(()) => Left::Finished,
            }
        }
    }

    /// To be called by the body, first.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls, `yielder` what the body was given.
    pub(crate) unsafe fn enter(this: NonNull<Self>, yielder: NonNull<Yielder<(), Y>>) {
        // SAFETY: the body alone accesses the field.
        unsafe { (*this.as_ptr()).yielder = Some(yielder) };
    }

    /// Suspends the calling body until it is resumed.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls, on its own stack, after [`Coroutine::enter`].
    #[inline]
    pub(crate) unsafe fn suspend(this: NonNull<Self>, message: Y) {
        let this = this.as_ptr();
        // SAFETY: the body alone accesses these fields while it runs.
        unsafe {
            let control = &mut (*this).control;
            control.save();
            let yielder = (*this).yielder.expect("the body has entered");
            yielder.as_ref().suspend(message);
        }
    }

    /// To be called by the body, last.
    ///
    /// # Safety
    ///
    /// `this` is the coroutine whose body calls.
    pub(crate) unsafe fn exit(this: NonNull<Self>) {
        // SAFETY: the body alone accesses the field while it runs.
        unsafe {
            let control = &mut (*this.as_ptr()).control;
            control.save();
        }
    }

    /// Gets back the slot of a body that ended.
    ///
    /// # Panics
    ///
    /// Panics if it has not.
    pub(crate) fn into_slot(self) -> Slot {
        self.inner.into_stack().slot
    }
}
