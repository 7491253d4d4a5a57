//! AArch64: TPIDR_EL0 and FPCR. UNTESTED: written to the interface, not yet run on a machine.

use std::ffi::c_void;
use std::ptr::NonNull;

core::arch::global_asm!(include_str!("../../asm/aarch64.S"), options(raw));

/// Libc's thread structure lies below the thread pointer, thread-local storage above it, after a
/// header of two words (variant I of Drepper's "ELF Handling for Thread-Local Storage").
pub(crate) const TLS_BELOW_THREAD_POINTER: bool = false;

/// FPCR, laid out as `asm/aarch64.S` reads it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct FpControl {
    fpcr: u64,
}

/// User code may always write TPIDR_EL0.
pub(crate) fn thread_pointer_is_writable() -> bool {
    true
}

/// Not read yet.
pub(crate) fn cycles() -> u64 {
    0
}

/// See [`cycles`].
pub(crate) fn cycles_are_steady() -> bool {
    false
}

impl FpControl {
    /// Copies the words.
    #[inline]
    pub(crate) fn assign(&mut self, other: &FpControl) {
        self.fpcr = other.fpcr;
    }

    /// Whether both ask for the same behaviour.
    #[inline]
    pub(crate) fn same_modes(&self, other: &FpControl) -> bool {
        self.fpcr == other.fpcr
    }
}

unsafe extern "C" {
    static uthread_begin: [u8; 0];
}

/// As [`super::prepare`].
///
/// # Safety
///
/// As there.
pub(super) unsafe fn prepare(
    base: NonNull<u8>,
    entry: super::Entry,
    argument: *mut c_void,
) -> usize {
    // As the switch leaves a stack: frame pointer, where to go on, x19, and a word that aligns.
    let words = [0, (&raw const uthread_begin).addr(), entry as usize, argument.addr()];
    // SAFETY: the caller says that there is room.
    unsafe {
        let at = base.cast::<[usize; 4]>().sub(1);
        at.write(words);
        at.as_ptr().addr()
    }
}

/// As on x86-64.
///
/// Where branches are protected (BTI), the label and `uthread_begin` would have to be landing pads for jumps.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn switch(to: usize, word: usize) -> (usize, usize) {
    let (left, back);
    // SAFETY: of the registers that the compiler may rely on, it saves those that it cannot declare as overwritten. What it
    // pushes on this stack is popped when another switch comes back to the label.
    unsafe {
        core::arch::asm!(
            "adr x2, 2f",
            "stp x29, x2, [sp, -32]!",
            "str x19, [sp, 16]",
            "mov x2, sp",
            "mov sp, x0",
            "mov x0, x2",
            "ldr x2, [sp, 8]",
            "br x2",
            "2:",
            "ldr x19, [sp, 16]",
            "ldr x29, [sp], 32",
            inlateout("x0") to => left,
            inlateout("x1") word => back,
            lateout("x20") _,
            lateout("x21") _,
            lateout("x22") _,
            lateout("x23") _,
            lateout("x24") _,
            lateout("x25") _,
            lateout("x26") _,
            lateout("x27") _,
            lateout("x28") _,
            lateout("v8") _,
            lateout("v9") _,
            lateout("v10") _,
            lateout("v11") _,
            lateout("v12") _,
            lateout("v13") _,
            lateout("v14") _,
            lateout("v15") _,
            clobber_abi("C"),
        );
    }
    (left, back)
}

/// As on x86-64.
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn switch_for_good(to: usize) -> ! {
    // SAFETY: nothing of this stack is used any more; the rest as the caller says.
    unsafe {
        core::arch::asm!(
            "mov sp, x0",
            "mov x0, xzr",
            "ldr x2, [sp, 8]",
            "br x2",
            in("x0") to,
            options(noreturn),
        );
    }
}

/// The place of the caller.
#[inline(always)]
pub(crate) fn here() -> super::Position {
    let (pc, sp, bp);
    // SAFETY: it writes three registers and nothing else.
    unsafe {
        core::arch::asm!(
            "adr {pc}, .",
            "mov {sp}, sp",
            "mov {bp}, x29",
            pc = out(reg) pc,
            sp = out(reg) sp,
            bp = out(reg) bp,
            options(nomem, nostack, preserves_flags)
        );
    }
    super::Position { pc, sp, bp }
}

/// As on x86-64.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(crate) unsafe fn observe(at: usize) -> usize {
    let word;
    // SAFETY: the caller says that there is something to be read; nothing is written but a register.
    unsafe {
        core::arch::asm!(
            "ldr {word}, [{at}]",
            word = out(reg) word,
            at = in(reg) at,
            options(readonly, nostack, preserves_flags)
        );
    }
    word
}

/// # Safety
///
/// Not to be called where detours are not available.
pub(crate) unsafe fn interrupted_at(_frame: *const usize) -> super::Position {
    unreachable!("{:?}", detours_available())
}

/// Detours are not written yet.
pub(crate) fn detours_available() -> Result<(), &'static str> {
    Err("forced preemption is not written for AArch64 yet")
}

/// The state of a thread that a signal interrupted. There are no detours, so nobody makes one.
pub(crate) enum Interrupted {}

impl Interrupted {
    /// # Safety
    ///
    /// Not to be called where detours are not available.
    pub(crate) unsafe fn new(_context: *mut c_void) -> Interrupted {
        unreachable!("{:?}", detours_available())
    }

    pub(crate) fn stack_pointer(&self) -> usize {
        match *self {}
    }

    pub(crate) fn instruction(&self) -> usize {
        match *self {}
    }

    pub(crate) fn place(&self) -> super::Position {
        match *self {}
    }

    pub(crate) fn blocked_signals(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn in_system_call(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_on_detour(&self) -> bool {
        match *self {}
    }

    pub(crate) fn detour_floor(&self) -> usize {
        match *self {}
    }

    /// # Safety
    ///
    /// None: it cannot be called.
    pub(crate) unsafe fn detour(&mut self, _argument: usize) {
        match *self {}
    }
}

#[cfg(test)]
impl FpControl {
    pub(super) fn rounding_up() -> FpControl {
        let mut words = FpControl::current();
        words.fpcr = words.fpcr & !(3 << 22) | 1 << 22;
        words
    }
}
