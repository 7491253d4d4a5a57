//! The machine's part of a context: thin Rust over `asm/`.
//!
//! # The stack switch
//!
//! **Problem.** A switch looks like a function call to its caller: it saves what a call preserves, changes the stack
//! pointer, and goes on where the other stack was left. Processors guess where a return leads by a stack of their own,
//! which holds the calls that were made last. Whether they guess right is most of what a switch costs: a wrong guess takes
//! 10 to 25 ns on machines that it was measured on, all the rest 4.
//!
//! **Alternatives.** *Resume by a call and suspend by a return*, as corosensei (which this crate was built on before) and
//! generators do: right for a body that suspends in its outermost function, again and again. A
//! thread suspends many calls deep, in a lock or a read: its next return then takes the entry of the resuming call,
//! and the next suspension that of somebody's call. Two guesses of each switch are wrong.
//!
//! **Choice.** *Jumps both ways.* The processor's stack is left alone; they guess jumps by what they have seen. A thread that
//! waits leaves the entries of its calls behind, and the thread that goes on in its place returns by them: right, if both
//! wait in the same function, as threads that do the same work do.
//!
//! There is one kind of switch, [`switch`], for both directions. Each side learns from it where the other one was
//! left. It overwrites all registers, so that the compiler saves only those that it has in use.
//!
//! Two more things belong to a thread. The **thread pointer**
//! (FS base on x86-64, TPIDR_EL0 on AArch64) is how compiled code finds its thread-local storage.
//! The **floating-point control words** (rounding mode, exception masks) are callee-saved by the
//! ABIs, so a function call, which a switch looks like, must preserve them.
//!
//! And a thread that a signal interrupts is more than what a function call preserves: [`Interrupted`]
//! is its whole state, as the kernel hands it to the handler, and [`Interrupted::detour`] makes it save
//! and restore that itself.
//!
//! Each architecture has a file with the same names: [`FpControl`], [`TLS_BELOW_THREAD_POINTER`],
//! [`thread_pointer_is_writable`], [`detours_available`], [`Interrupted`], [`here`], [`interrupted_at`], [`observe`],
//! [`switch`] and [`switch_for_good`].

use std::ffi::c_void;
use std::ptr::NonNull;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as imp;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as imp;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("uthread knows the contexts of x86-64 and AArch64 only");

pub(crate) use imp::{
    FpControl, Interrupted, TLS_BELOW_THREAD_POINTER, cycles, cycles_are_steady, detours_available,
    here, interrupted_at, observe, switch, switch_for_good, thread_pointer_is_writable,
};

/// A place in a thread's execution, from which its frames can be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The instruction to be executed next.
    pub(crate) pc: usize,
    /// The stack pointer.
    pub(crate) sp: usize,
    /// The frame pointer, or whatever the register holds.
    pub(crate) bp: usize,
}

unsafe extern "C" {
    safe fn uthread_thread_pointer() -> usize;
    fn uthread_set_thread_pointer(value: usize);
    safe fn uthread_save_fp_control(out: &mut FpControl);
    safe fn uthread_load_fp_control(new: &FpControl);
}

/// What is called on a new stack: by the first switch to it, with what that one passes, and the argument that was given to
/// [`prepare`]. It does not return.
pub(crate) type Entry = extern "C" fn(usize, usize, *mut c_void) -> !;

/// Prepares a stack, whose frames begin below `base`, for the first switch to it, which calls `entry`; its name for
/// [`switch`].
///
/// For unwinders, `entry` is called by the first function of a thread: they see nothing beyond. Else they
/// would go on to the stack of the worker that runs the green thread. A thread that is interrupted while it takes
/// a backtrace, and goes on on another worker, would read frames there that are long gone.
///
/// # Safety
///
/// `base` is aligned to 16, and below it a stack for the needs of `entry`, which nobody uses.
pub(crate) unsafe fn prepare(base: NonNull<u8>, entry: Entry, argument: *mut c_void) -> usize {
    // SAFETY: as promised to this function.
    unsafe { imp::prepare(base, entry, argument) }
}

/// The calling thread's thread pointer. Needs [`thread_pointer_is_writable`].
#[inline]
pub(crate) fn thread_pointer() -> usize {
    uthread_thread_pointer()
}

/// Makes `value` the thread pointer.
///
/// # Safety
///
/// [`thread_pointer_is_writable`] said yes. `value` is the thread pointer of a complete thread block
/// or of the calling OS thread, and no other OS thread has it now. The caller, up to the next such
/// call, and everything it calls, may use the thread-local storage only of the thread named here:
/// addresses of thread-locals taken earlier in the same function are another thread's.
#[inline]
pub(crate) unsafe fn set_thread_pointer(value: usize) {
    // SAFETY: the caller's obligations are those of the instruction.
    unsafe { uthread_set_thread_pointer(value) }
}

impl FpControl {
    /// The control words in force.
    #[inline]
    pub(crate) fn current() -> FpControl {
        let mut words = FpControl::default();
        words.save();
        words
    }

    /// Overwrites `self` with the control words in force.
    #[inline]
    pub(crate) fn save(&mut self) {
        uthread_save_fp_control(self);
    }

    /// Puts these control words in force.
    #[inline]
    pub(crate) fn load(&self) {
        uthread_load_fp_control(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_pointer_written_back_leaves_thread_locals_usable() {
        thread_local!(static X: std::cell::Cell<u32> = const { std::cell::Cell::new(7) });
        if !thread_pointer_is_writable() {
            return;
        }
        X.set(8);
        // SAFETY: it is this thread's own pointer.
        unsafe { set_thread_pointer(thread_pointer()) };
        assert_eq!(X.get(), 8);
    }

    #[test]
    fn control_words_saved_are_the_ones_loaded() {
        use std::hint::black_box;
        // The compiler knows of no rounding modes; but what passes a black box stays where it is.
        let a_third = || black_box(black_box(1.0_f64) / black_box(3.0));
        let before = FpControl::current();
        let other = FpControl::rounding_up();
        other.load();
        let third = a_third();
        let seen = FpControl::current();
        before.load();
        let nearest = a_third();
        assert!(third > nearest, "one third rounds up in one mode and down in the other");
        assert!(seen.same_modes(&other) && FpControl::current().same_modes(&before));
    }
}
