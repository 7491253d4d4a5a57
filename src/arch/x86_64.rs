//! x86-64: FS base, MXCSR and the x87 control word.

core::arch::global_asm!(include_str!("../../asm/x86_64.S"), options(raw));

/// Thread-local storage lies below the thread pointer, libc's thread structure at and above it
/// (variant II of Drepper's "ELF Handling for Thread-Local Storage").
pub(crate) const TLS_BELOW_THREAD_POINTER: bool = true;

/// MXCSR and the x87 control word, laid out as `asm/x86_64.S` reads them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct FpControl {
    mxcsr: u32,
    x87: u16,
}

/// Whether user code may write the FS base: AT_HWCAP2 bit 1, set by Linux 5.9 and later on
/// processors with FSGSBASE (Documentation/arch/x86/x86_64/fsgs.rst).
pub(crate) fn thread_pointer_is_writable() -> bool {
    const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

impl FpControl {
    /// Copies word by word: loading both at once would wait for the two stores that saved them to
    /// reach the cache, which costs more than the rest of the comparison.
    #[inline]
    pub(crate) fn assign(&mut self, other: &FpControl) {
        self.mxcsr = other.mxcsr;
        self.x87 = other.x87;
    }

    /// Whether both ask for the same behaviour. The six lowest bits of MXCSR are sticky exception
    /// flags, which the ABI does not preserve across calls.
    #[inline]
    pub(crate) fn same_modes(&self, other: &FpControl) -> bool {
        (self.mxcsr ^ other.mxcsr) & !0x3f == 0 && self.x87 == other.x87
    }
}

#[cfg(test)]
impl FpControl {
    pub(super) fn rounding_up() -> FpControl {
        let mut words = FpControl::current();
        words.mxcsr = words.mxcsr & !0x6000 | 0x4000;
        words.x87 = words.x87 & !0x0c00 | 0x0800;
        words
    }
}
