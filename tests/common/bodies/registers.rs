//! All registers of a thread, filled, held over a loop, and read back.

use std::arch::global_asm;

use crate::preempt::Random;

/// What a thread has in its registers. Laid out as the assembly below reads it.
#[repr(C, align(64))]
#[derive(Clone, PartialEq)]
pub(crate) struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    general: [u64; 15],
    /// Carry and direction.
    flags: u64,
    /// The 128 bytes below the stack pointer, from below.
    red_zone: [u64; 16],
    /// The registers of the x87, 80 bits each, st(7) first.
    x87: [[u8; 16]; 8],
    mxcsr: u32,
    x87_control: u16,
    x87_status: u16,
    unused: [u64; 7],
    /// k0 to k7.
    masks: [u64; 8],
    /// zmm0 to zmm31, or as much of them as the processor has.
    vectors: [[u8; 64]; 32],
}

/// Carry and direction, the flags that a counting loop does not touch.
const FLAGS: u64 = 0x401;
/// Exceptions masked, as always (Intel's manual, volume 1, 10.2.3 and 8.1.5).
const MXCSR_MASKS: u32 = 0x1f80;
const X87_MASKS: u16 = 0x003f;
/// A division by zero was made, and the top of the stack is register 0: eight values are on it.
const X87_STATUS: u16 = 0x0004;
/// The exceptions and the top of the stack, but not the condition codes.
const X87_STATUS_BITS: u16 = 0x3807;

/// How much of the vector registers the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Vectors {
    Sse = 0,
    Avx = 1,
    Avx512 = 2,
}

impl Vectors {
    pub(crate) fn detected() -> Vectors {
        if std::is_x86_feature_detected!("avx512bw") {
            Vectors::Avx512
        } else if std::is_x86_feature_detected!("avx2") {
            Vectors::Avx
        } else {
            Vectors::Sse
        }
    }
}

impl Registers {
    fn zero() -> Registers {
        Registers {
            general: [0; 15],
            flags: 0,
            red_zone: [0; 16],
            x87: [[0; 16]; 8],
            mxcsr: 0,
            x87_control: 0,
            x87_status: 0,
            unused: [0; 7],
            masks: [0; 8],
            vectors: [[0; 64]; 32],
        }
    }

    /// Different ones for each seed.
    pub(crate) fn random(seed: u64, vectors: Vectors) -> Registers {
        let mut random = Random(seed);
        let mut new = Registers::zero();
        new.general.fill_with(|| random.next());
        new.flags = random.next() & FLAGS;
        new.red_zone.fill_with(|| random.next());
        for register in &mut new.x87 {
            // The significand's highest bit is set, and the exponent is neither zero nor the highest: a number
            // that loads and stores leave alone. Sixteen bits of exponent and sign.
            register[..8].copy_from_slice(&(random.next() | 1 << 63).to_ne_bytes());
            let exponent = (1 + random.below(0x7ffe) as u16) | (random.next() as u16) << 15;
            register[8..10].copy_from_slice(&exponent.to_ne_bytes());
        }
        let rounding = random.next();
        // Rounding mode, flush to zero, and what exceptions have occurred.
        new.mxcsr = MXCSR_MASKS | (rounding as u32 & 3) << 13 | rounding as u32 & 0x803f;
        // Rounding mode and precision, of which 1 is reserved.
        let precision = [0, 2, 3][random.below(3) as usize];
        new.x87_control = X87_MASKS | (rounding as u16 & 3) << 10 | precision << 8;
        new.x87_status = X87_STATUS;
        let (count, bytes) = match vectors {
            Vectors::Sse => (16, 16),
            Vectors::Avx => (16, 32),
            Vectors::Avx512 => (32, 64),
        };
        for vector in &mut new.vectors[..count] {
            vector[..bytes].fill_with(|| random.next() as u8);
        }
        if vectors == Vectors::Avx512 {
            new.masks.fill_with(|| random.next());
        }
        new
    }

    /// Holds these values in the registers while a loop of `spins` runs; what is in them then.
    pub(crate) fn hold(&self, spins: u64, vectors: Vectors) -> Registers {
        let mut after = Registers::zero();
        // SAFETY: the processor has the vectors, and both structures are as the function wants them.
        unsafe { uthread_test_hold(self, &mut after, spins.max(1), vectors as u32) };
        after.flags &= FLAGS;
        after.x87_control &= 0x0f3f;
        after.x87_status &= X87_STATUS_BITS;
        after
    }

    /// Which registers differ.
    pub(crate) fn difference(&self, after: &Registers) -> String {
        use std::fmt::Write;

        let mut text = String::new();
        let mut tell = |name: &str, before: &[u8], after: &[u8]| {
            if before != after {
                write!(text, "\n  {name}: {before:02x?} became {after:02x?}").unwrap();
            }
        };
        for i in 0..15 {
            let name = format!("general register {i}");
            tell(&name, &self.general[i].to_be_bytes(), &after.general[i].to_be_bytes());
        }
        tell("flags", &self.flags.to_be_bytes(), &after.flags.to_be_bytes());
        for i in 0..16 {
            let name = format!("red zone, word {i} from below");
            tell(&name, &self.red_zone[i].to_be_bytes(), &after.red_zone[i].to_be_bytes());
        }
        for i in 0..8 {
            tell(&format!("x87 register {i}"), &self.x87[i], &after.x87[i]);
            let (mask, now) = (self.masks[i].to_be_bytes(), after.masks[i].to_be_bytes());
            tell(&format!("mask {i}"), &mask, &now);
        }
        tell("MXCSR", &self.mxcsr.to_be_bytes(), &after.mxcsr.to_be_bytes());
        tell("x87 control", &self.x87_control.to_be_bytes(), &after.x87_control.to_be_bytes());
        tell("x87 status", &self.x87_status.to_be_bytes(), &after.x87_status.to_be_bytes());
        for i in 0..32 {
            tell(&format!("vector {i}"), &self.vectors[i], &after.vectors[i]);
        }
        text
    }
}

unsafe extern "C" {
    /// Fills all registers from `before`, spins, and writes them to `after`.
    ///
    /// # Safety
    ///
    /// `spins` is not 0, and the processor has the vector registers that are named.
    fn uthread_test_hold(before: *const Registers, after: *mut Registers, spins: u64, vectors: u32);
}

global_asm!(
    r#"
# Offsets in `Registers`:  general 0, flags 120, red zone 128, x87 256, mxcsr 384, x87 control 388,
# x87 status 390, masks 448, vectors 512.
#
#       |  callee-saved registers        |
#       |  mxcsr, x87 control of caller  |  + 32
#       |  vectors                       |  + 24
#       |  after                         |  + 16
#       |  before                        |  + 8
#       |  count                         |  <- rsp during the loop
#       |  red zone                      |
    .text
    .globl  uthread_test_hold
    .type   uthread_test_hold, @function
    .p2align 4
uthread_test_hold:
    .cfi_startproc
    push    rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbx, 0
    push    rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbp, 0
    push    r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r12, 0
    push    r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r13, 0
    push    r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r14, 0
    push    r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r15, 0
    sub     rsp, 40
    .cfi_adjust_cfa_offset 40
    mov     [rsp], rdx
    mov     [rsp + 8], rdi
    mov     [rsp + 16], rsi
    mov     [rsp + 24], rcx
    stmxcsr [rsp + 32]
    fnstcw  [rsp + 36]

    cmp     ecx, 1
    jb      2f
    je      3f
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqu64 zmm\n, [rdi + 512 + 64 * \n]
    .endr
    .irp n, 0,1,2,3,4,5,6,7
    kmovq   k\n, [rdi + 448 + 8 * \n]
    .endr
    jmp     4f
3:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu ymm\n, [rdi + 512 + 64 * \n]
    .endr
    jmp     4f
2:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movdqu  xmm\n, [rdi + 512 + 64 * \n]
    .endr

4:  ldmxcsr [rdi + 384]
    fninit
    fld1                                # 1 / 0 leaves its mark in the status word
    fldz
    fdivp
    fstp    st(0)
    fldcw   [rdi + 388]
    .irp n, 0,1,2,3,4,5,6,7
    fld     tbyte ptr [rdi + 256 + 16 * \n]
    .endr

    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    mov     rax, [rdi + 128 + 8 * \n]
    mov     [rsp - 128 + 8 * \n], rax
    .endr
    mov     rax, [rdi + 120]
    lea     rsp, [rsp - 128]            # flags are set by way of the stack, below the red zone
    push    rax
    popfq
    lea     rsp, [rsp + 128]
    mov     rax, [rdi]
    mov     rbx, [rdi + 8]
    mov     rcx, [rdi + 16]
    mov     rdx, [rdi + 24]
    mov     rsi, [rdi + 32]
    mov     rbp, [rdi + 48]
    mov     r8, [rdi + 56]
    mov     r9, [rdi + 64]
    mov     r10, [rdi + 72]
    mov     r11, [rdi + 80]
    mov     r12, [rdi + 88]
    mov     r13, [rdi + 96]
    mov     r14, [rdi + 104]
    mov     r15, [rdi + 112]
    mov     rdi, [rdi + 40]

5:  dec     qword ptr [rsp]             # leaves carry and direction alone
    jnz     5b

    lea     rsp, [rsp - 128]            # what is pushed now lies below the red zone
    pushfq
    cld
    push    r15
    push    r14
    push    r13
    push    r12
    push    r11
    push    r10
    push    r9
    push    r8
    push    rbp
    push    rdi
    push    rsi
    push    rdx
    push    rcx
    push    rbx
    push    rax
    mov     rsi, rsp                    # general, flags, red zone: in the order of `Registers`
    mov     rdi, [rsp + 256 + 16]
    mov     ecx, 32
    rep movsq
    lea     rsp, [rsp + 256]
    mov     rdi, [rsp + 16]
    mov     ecx, [rsp + 24]

    stmxcsr [rdi + 384]
    fnstcw  [rdi + 388]
    fnstsw  [rdi + 390]
    .irp n, 7,6,5,4,3,2,1,0
    fstp    tbyte ptr [rdi + 256 + 16 * \n]
    .endr
    cmp     ecx, 1
    jb      2f
    je      3f
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqu64 [rdi + 512 + 64 * \n], zmm\n
    .endr
    .irp n, 0,1,2,3,4,5,6,7
    kmovq   [rdi + 448 + 8 * \n], k\n
    .endr
    vzeroupper
    jmp     4f
3:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu [rdi + 512 + 64 * \n], ymm\n
    .endr
    vzeroupper
    jmp     4f
2:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movdqu  [rdi + 512 + 64 * \n], xmm\n
    .endr

4:  fninit
    ldmxcsr [rsp + 32]
    fldcw   [rsp + 36]
    add     rsp, 40
    .cfi_adjust_cfa_offset -40
    pop     r15
    .cfi_adjust_cfa_offset -8
    pop     r14
    .cfi_adjust_cfa_offset -8
    pop     r13
    .cfi_adjust_cfa_offset -8
    pop     r12
    .cfi_adjust_cfa_offset -8
    pop     rbp
    .cfi_adjust_cfa_offset -8
    pop     rbx
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size   uthread_test_hold, . - uthread_test_hold
"#
);
