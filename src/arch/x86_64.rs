//! x86-64: FS base, MXCSR and the x87 control word; the state of an interrupted thread.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::Position;

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

/// The processor's count of cycles, which instructions before and after it may overtake.
#[inline]
pub(crate) fn cycles() -> u64 {
    // SAFETY: the instruction is part of x86-64. (A process may forbid it to itself, prctl(2); then the kernel's
    // clock, which is read by it as well, is not to be had either.)
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Whether it goes on at the same rate in all states of the processor ("invariant TSC": Intel's manual, volume 3,
/// "Time-Stamp Counter"; AMD's manual, volume 3, function 8000_0007h).
pub(crate) fn cycles_are_steady() -> bool {
    const INVARIANT: u32 = 1 << 8;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & INVARIANT != 0
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

/// Bytes of an XSAVE area for the state that the operating system has enabled, without that of the matrix tiles
/// (AMX) and with it; the lower halves of both masks; and what the processor has to fill it. Read
/// by `uthread_detour`; set before the first detour.
#[unsafe(no_mangle)]
static uthread_xsave_size: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
#[unsafe(no_mangle)]
static uthread_xsave_masks: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
#[unsafe(no_mangle)]
static uthread_xsave_flags: AtomicU8 = AtomicU8::new(0);

/// The state components of the matrix tiles: eight kilobytes that hardly any thread uses.
const TILES: u64 = 1 << 17 | 1 << 18;
/// That of the protection keys (PKRU), which stay the OS thread's: a thread that waits does not take them along either.
const KEYS: u64 = 1 << 9;

unsafe extern "C" {
    static uthread_begin: [u8; 0];
    static uthread_detour: [u8; 0];
    static uthread_detour_end: [u8; 0];
}

/// `Ok` where interrupted threads can save their whole state themselves, else the reason why not. To
/// be called before [`Interrupted::detour`].
pub(crate) fn detours_available() -> Result<(), &'static str> {
    static AVAILABLE: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        // Intel's "Software Developer's Manual", volume 1, 13.2: CPUID.1:ECX.OSXSAVE; sub-leaf 0 of leaf
        // 0DH has in EBX the size for what XCR0 enables, sub-leaf 1 in EAX bit 1 whether there is XSAVEC,
        // and the sub-leaf of each further component in EAX its size and in EBX its place. (With XSAVEC
        // components move together, never apart.)
        const OSXSAVE: u32 = 1 << 27;
        const XSAVEC: u32 = 1 << 1;
        const AVX_STATE: u64 = 1 << 2;
        const LEGACY_AND_HEADER: u32 = 576;
        if __cpuid(1).ecx & OSXSAVE == 0 {
            return Err("the processor or the hypervisor has no XSAVE");
        }
        // SAFETY: OSXSAVE says that the instruction may be used.
        let enabled = unsafe { xcr0() };
        let flags = u8::from(__cpuid_count(0xd, 1).eax & XSAVEC != 0)
            | u8::from(enabled & AVX_STATE != 0) << 1;
        uthread_xsave_flags.store(flags, Ordering::Relaxed);
        let usual = enabled & !TILES & !KEYS;
        let ends = (2..63).filter(|component| usual >> component & 1 != 0).map(|component| {
            let leaf = __cpuid_count(0xd, component);
            leaf.ebx + leaf.eax
        });
        let usual_size = ends.fold(LEGACY_AND_HEADER, u32::max);
        uthread_xsave_masks[0].store(!(TILES | KEYS) as u32, Ordering::Relaxed);
        uthread_xsave_masks[1].store(!KEYS as u32, Ordering::Relaxed);
        uthread_xsave_size[0].store(usual_size, Ordering::Relaxed);
        uthread_xsave_size[1].store(__cpuid_count(0xd, 0).ebx, Ordering::Relaxed);
        Ok(())
    })
}

/// # Safety
///
/// CPUID says OSXSAVE.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: as promised to this function; XCR0 always exists then.
    unsafe { _xgetbv(0) }
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
    let words = [(&raw const uthread_begin).addr(), entry as usize, argument.addr()];
    // SAFETY: the caller says that there is room. The begin pops all three, and calls with the stack aligned.
    unsafe {
        let at = base.cast::<[usize; 3]>().sub(1);
        at.write(words);
        at.as_ptr().addr()
    }
}

/// Leaves the running stack for another one, and returns when another switch comes back: where that one left its stack, 0 if it
/// was for good, and its word.
///
/// # Safety
///
/// `to` is where a stack was left by a switch, which it is told by the switch that it led to; or what [`super::prepare`]
/// returned. It is switched to once, by whoever owns what runs there. The stack is in place until then, and so is the running
/// one until it is switched back to. The code there may run now: the thread pointer in force is the one that it
/// expects, and what this stack's code expects when it goes on.
#[inline(always)]
pub(crate) unsafe fn switch(to: usize, word: usize) -> (usize, usize) {
    let (left, back);
    // The tables for unwinders know nothing of these three pushes, nor could they be told: to whom looks from outside (a dump's
    // probe, perf) in the middle of them, the frame's end is off by up to 24 bytes, and the frames beyond are wrong or missing.
    // SAFETY: of the registers that the compiler may rely on, it saves those that it cannot declare as overwritten. What it
    // pushes on this stack is popped when another switch comes back to the label. (The modes of floating-point arithmetic are
    // the business of the callers: see `Coroutine::resume`.)
    unsafe {
        core::arch::asm!(
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov rax, rsp",
            "mov rsp, rdi",
            "mov rdi, rax",
            "pop rax",
            "jmp rax",
            "2:",
            "pop rbx",
            "pop rbp",
            inlateout("rdi") to => left,
            inlateout("rsi") word => back,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    (left, back)
}

/// Leaves the running stack, which may be used for something else then, for another one.
///
/// # Safety
///
/// As for [`switch`]; and nothing on the running stack is used any more.
pub(crate) unsafe fn switch_for_good(to: usize) -> ! {
    // SAFETY: nothing of this stack is used any more; the rest as the caller says.
    unsafe {
        core::arch::asm!(
            "mov rsp, rdi",
            "xor edi, edi",
            "pop rax",
            "jmp rax",
            in("rdi") to,
            options(noreturn),
        );
    }
}

/// The place of the caller.
#[inline(always)]
pub(crate) fn here() -> Position {
    let (pc, sp, bp);
    // SAFETY: it writes three registers and nothing else.
    unsafe {
        core::arch::asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {bp}, rbp",
            pc = out(reg) pc,
            sp = out(reg) sp,
            bp = out(reg) bp,
            options(nomem, nostack, preserves_flags)
        );
    }
    Position { pc, sp, bp }
}

/// The word at an aligned address, which others may write to meanwhile: an old one or a new one.
///
/// To the compiler it comes from outside of the program, as what the kernel copies. Nothing is said about its order
/// with other words; whoever needs one uses a fence.
///
/// # Safety
///
/// The address is mapped, and stays so.
#[inline(always)]
pub(crate) unsafe fn observe(at: usize) -> usize {
    let word;
    // SAFETY: the caller says that there is something to be read; nothing is written but a register.
    unsafe {
        core::arch::asm!(
            "mov {word}, [{at}]",
            word = out(reg) word,
            at = in(reg) at,
            options(readonly, nostack, preserves_flags)
        );
    }
    word
}

/// Where the thread was interrupted that is on the detour with this frame.
///
/// # Safety
///
/// It is the detour's frame, as `asm/x86_64.S` draws it.
pub(crate) unsafe fn interrupted_at(frame: *const usize) -> Position {
    const RBP: usize = 10;
    const RIP: usize = 17;
    // SAFETY: both words were saved there.
    let (bp, pc) = unsafe { (frame.add(RBP).read(), frame.add(RIP).read()) };
    // Above the words and the red zone.
    let sp = frame.addr() + (RIP + 1) * size_of::<usize>() + Interrupted::RED_ZONE;
    Position { pc, sp, bp }
}

/// The state of a thread at the instant at which a signal interrupted it, to be read and changed by the
/// signal's handler.
pub(crate) struct Interrupted(NonNull<libc::ucontext_t>);

impl Interrupted {
    /// Bytes below the stack pointer that belong to the running function (System V ABI, 3.2.2).
    const RED_ZONE: usize = 128;
    /// Bytes that the functions called by the detour may take, down to the switch of stacks.
    const CALLS: usize = 2048;

    /// Wraps a handler's third argument.
    ///
    /// # Safety
    ///
    /// It is that, and the handler has not returned.
    pub(crate) unsafe fn new(context: *mut c_void) -> Interrupted {
        Interrupted(NonNull::new(context.cast()).expect("handlers get a context"))
    }

    fn register(&self, which: libc::c_int) -> usize {
        // SAFETY: the context is valid, as `new` was told.
        unsafe { self.0.as_ref() }.uc_mcontext.gregs[which as usize] as usize
    }

    fn set_register(&mut self, which: libc::c_int, value: usize) {
        // SAFETY: the context is valid, as `new` was told, and `self` alone gives access to it.
        unsafe { self.0.as_mut() }.uc_mcontext.gregs[which as usize] = value as i64;
    }

    /// The stack pointer.
    pub(crate) fn stack_pointer(&self) -> usize {
        self.register(libc::REG_RSP)
    }

    /// The address of the instruction to be executed next.
    pub(crate) fn instruction(&self) -> usize {
        self.register(libc::REG_RIP)
    }

    /// Where it was interrupted.
    pub(crate) fn place(&self) -> Position {
        Position {
            pc: self.instruction(),
            sp: self.stack_pointer(),
            bp: self.register(libc::REG_RBP),
        }
    }

    /// The set of signals that the thread had blocked, as the kernel's 64 bits.
    pub(crate) fn blocked_signals(&self) -> u64 {
        // SAFETY: the context is valid; the kernel fills the first 64 bits of the set.
        unsafe { (&raw const (*self.0.as_ptr()).uc_sigmask).cast::<u64>().read() }
    }

    /// Whether the thread was in a system call that waits: one that will be restarted, so that the
    /// instruction is to be executed again, or one that ended with EINTR (signal(7)).
    ///
    /// A thread that was about to execute the instruction for the first time looks the same.
    pub(crate) fn in_system_call(&self) -> bool {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        const PAGE: usize = 4096;
        let at = self.instruction();
        // SAFETY: the instruction to be executed is mapped, and so is the rest of its page; and the next one, if
        // the instruction goes on there.
        let here = unsafe {
            let has_second = at % PAGE <= PAGE - 2 || (at as *const u8).read() == SYSCALL[0];
            has_second.then(|| (at as *const [u8; 2]).read())
        };
        // SAFETY: as above.
        let before = (at % PAGE >= 2).then(|| unsafe { (at as *const [u8; 2]).byte_sub(2).read() });
        here == Some(SYSCALL)
            || before == Some(SYSCALL)
                && self.register(libc::REG_RAX) as isize == -(libc::EINTR as isize)
    }

    /// Whether the thread is at the beginning or the end of a detour, with its registers half saved.
    pub(crate) fn is_on_detour(&self) -> bool {
        let detour = &raw const uthread_detour as usize..&raw const uthread_detour_end as usize;
        detour.contains(&self.instruction())
    }

    /// Whether the thread had something in matrix tiles.
    fn uses_tiles(&self) -> bool {
        // Documentation of the frame: arch/x86/include/uapi/asm/sigcontext.h. Behind the legacy state, whose
        // reserved bytes say so, comes the header of XSAVE, whose first word says what is not initial.
        const MAGIC_AT: usize = 464;
        const HEADER_AT: usize = 512;
        const MAGIC: u32 = 0x4650_5853;
        // SAFETY: the context is valid, as `new` was told; the magic number says that there is a header.
        unsafe {
            let state = (*self.0.as_ptr()).uc_mcontext.fpregs.cast::<u8>();
            !state.is_null()
                && state.add(MAGIC_AT).cast::<u32>().read() == MAGIC
                && state.add(HEADER_AT).cast::<u64>().read() & TILES != 0
        }
    }

    /// The lowest address of the stack that a detour would use.
    pub(crate) fn detour_floor(&self) -> usize {
        const REGISTERS: usize = 20 * 8 + 64;
        let which = usize::from(self.uses_tiles());
        let state = uthread_xsave_size[which].load(Ordering::Relaxed) as usize;
        self.stack_pointer().saturating_sub(Self::RED_ZONE + REGISTERS + state + Self::CALLS)
    }

    /// Makes the thread, when the handler returns, save its whole state on its stack and call
    /// `uthread_interrupted(argument)`; when that returns, perhaps on another OS thread, it goes on where
    /// it was interrupted.
    ///
    /// # Safety
    ///
    /// Detours are available. The argument is less than 2³². The stack is writable from the stack pointer down to
    /// [`Interrupted::detour_floor`]. The thread may call functions here.
    pub(crate) unsafe fn detour(&mut self, argument: usize) {
        const WITH_TILES: usize = 1 << 32;
        let entry = self.stack_pointer() - Self::RED_ZONE - 16;
        let argument = if self.uses_tiles() { argument | WITH_TILES } else { argument };
        // SAFETY: the caller says that the stack has room; nobody uses what is below the red zone.
        unsafe {
            (entry as *mut usize).write(argument);
            (entry as *mut usize).add(1).write(self.instruction());
        }
        self.set_register(libc::REG_RSP, entry);
        self.set_register(libc::REG_RIP, &raw const uthread_detour as usize);
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
