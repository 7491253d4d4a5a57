//! What an interrupted thread has in its registers is there when it goes on, on whatever worker.
#![cfg(target_arch = "x86_64")]

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::arch::asm;
use std::arch::x86_64::*;

use preempt::{interrupted, on_each};

#[test]
fn general_registers_and_flags() {
    interrupted(|| {
        on_each(16, |i| {
            let seed = i as u64 + 1;
            for _ in 0..50 {
                let (mut sum, bad): (u64, u64);
                // Fills all free registers with multiples of the seed, spins with the direction flag set, and
                // compares them.
                // SAFETY: only the registers named are changed; the direction flag is cleared again, and memory
                // is not touched.
                unsafe {
                    asm!(
                        "std",
                        "lea r8, [{seed} + {seed}]",
                        "lea r9, [r8 + {seed}]",
                        "lea r10, [r9 + {seed}]",
                        "lea r11, [r10 + {seed}]",
                        "lea r12, [r11 + {seed}]",
                        "lea r13, [r12 + {seed}]",
                        "lea r14, [r13 + {seed}]",
                        "lea r15, [r14 + {seed}]",
                        "mov ecx, 20000",
                        "2: dec ecx",
                        "jnz 2b",
                        "pushfq",
                        "pop rax",
                        "cld",
                        "and eax, 0x400",
                        "xor eax, 0x400",
                        "lea rdx, [r8 + r9]",
                        "add rdx, r10",
                        "add rdx, r11",
                        "add rdx, r12",
                        "add rdx, r13",
                        "add rdx, r14",
                        "add rdx, r15",
                        seed = in(reg) seed,
                        out("rax") bad, out("rdx") sum, out("rcx") _,
                        out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                        out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                    );
                }
                sum /= seed;
                assert_eq!((sum, bad), (2 + 3 + 4 + 5 + 6 + 7 + 8 + 9, 0));
            }
        });
    });
}

#[test]
fn what_lies_below_the_stack_pointer() {
    interrupted(|| {
        on_each(8, |i| {
            let seed = i as u64 + 1;
            for _ in 0..50 {
                let seen: u64;
                // SAFETY: the red zone belongs to a function until it calls another, as here none does; the
                // compiler is told that the stack is in use by the absence of `nostack`, so the code makes its
                // own room.
                unsafe {
                    asm!(
                        "sub rsp, 128",
                        "mov [rsp - 8], {seed}",
                        "mov [rsp - 64], {seed}",
                        "mov [rsp - 128], {seed}",
                        "mov ecx, 20000",
                        "2: dec ecx",
                        "jnz 2b",
                        "mov {seen}, [rsp - 8]",
                        "add {seen}, [rsp - 64]",
                        "add {seen}, [rsp - 128]",
                        "add rsp, 128",
                        seed = in(reg) seed, seen = out(reg) seen, out("rcx") _,
                    );
                }
                assert_eq!(seen, 3 * seed);
            }
        });
    });
}

/// A value in each of the sixteen vector registers, over a loop.
#[target_feature(enable = "avx2")]
fn vectors(seed: i64) {
    let start: [__m256i; 12] =
        std::array::from_fn(|n| _mm256_set_epi64x(seed, seed ^ 1, n as i64, seed + n as i64));
    let mut now = start;
    let step = _mm256_set1_epi64x(seed);
    for _ in 0..2000 {
        for v in &mut now {
            *v = _mm256_add_epi64(*v, step);
        }
    }
    let total = _mm256_set1_epi64x(seed * 2000);
    for (v, s) in now.into_iter().zip(start) {
        let equal = _mm256_cmpeq_epi64(v, _mm256_add_epi64(s, total));
        assert_eq!(_mm256_movemask_epi8(equal), -1);
    }
}

#[test]
fn vector_registers() {
    if !std::is_x86_feature_detected!("avx2") {
        return eprintln!("skipped: no AVX2");
    }
    interrupted(|| {
        on_each(16, |i| {
            for _ in 0..20 {
                // SAFETY: the feature was detected.
                unsafe { vectors(i as i64 + 1) };
            }
        });
    });
}

/// A mask and a long vector, over a loop.
#[target_feature(enable = "avx512f")]
fn long_vectors(seed: i64) {
    let (mask, low, high): (u64, i64, i64);
    // SAFETY: only the registers named are changed.
    unsafe {
        asm!(
            "vpbroadcastq zmm5, {seed}",
            "vpbroadcastq zmm29, {seed}",
            "kmovw k3, {seed:e}",
            "mov ecx, 20000",
            "2: dec ecx",
            "jnz 2b",
            "kmovw {mask:e}, k3",
            "vextracti64x4 ymm5, zmm5, 1",
            "vmovq {low}, xmm5",
            "vextracti64x4 ymm29, zmm29, 1",
            "vmovq {high}, xmm29",
            "vzeroupper",
            seed = in(reg) seed, mask = out(reg) mask, low = out(reg) low, high = out(reg) high,
            out("rcx") _, out("zmm5") _, out("zmm29") _, out("k3") _,
        );
    }
    assert_eq!((mask, low, high), (seed as u64 & 0xffff, seed, seed));
}

#[test]
fn mask_registers_and_long_vectors() {
    if !std::is_x86_feature_detected!("avx512f") {
        return eprintln!("skipped: no AVX-512");
    }
    interrupted(|| {
        on_each(16, |i| {
            for _ in 0..30 {
                // SAFETY: the feature was detected.
                unsafe { long_vectors(i as i64 + 7) };
            }
        });
    });
}

#[test]
fn x87_values_stay_on_their_stack() {
    interrupted(|| {
        on_each(8, |i| {
            let seed = i as i64 + 1;
            for _ in 0..30 {
                let mut sum = 0_i64;
                // SAFETY: memory is touched at the places given only, and the x87 stack is empty again.
                unsafe {
                    asm!(
                        "fild qword ptr [{seed}]",
                        "fild qword ptr [{seed}]",
                        "fild qword ptr [{seed}]",
                        "fild qword ptr [{seed}]",
                        "fild qword ptr [{seed}]",
                        "fild qword ptr [{seed}]",
                        "mov ecx, 20000",
                        "2: dec ecx",
                        "jnz 2b",
                        "faddp", "faddp", "faddp", "faddp", "faddp",
                        "fistp qword ptr [{sum}]",
                        seed = in(reg) &seed, sum = in(reg) &mut sum, out("rcx") _,
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    );
                }
                assert_eq!(sum, 6 * seed);
            }
        });
    });
}

#[test]
fn rounding_modes() {
    interrupted(|| {
        on_each(8, |i| {
            let mode = i as u32 % 4;
            for _ in 0..20 {
                let (mut before, mut after) = (0_u32, 0_u32);
                let (mut x87_before, mut x87_after) = (0_u16, 0_u16);
                // SAFETY: both control words are as before at the end; no floating-point instruction of the
                // compiler's lies in between.
                unsafe {
                    asm!("stmxcsr [{}]", in(reg) &mut before);
                    asm!("fnstcw [{}]", in(reg) &mut x87_before);
                    let changed = before & !0x6000 | mode << 13;
                    let x87_changed = x87_before & !0x0c00 | (mode << 10) as u16;
                    asm!(
                        "ldmxcsr [{new}]",
                        "fldcw [{x87_new}]",
                        "mov ecx, 20000",
                        "2: dec ecx",
                        "jnz 2b",
                        "stmxcsr [{after}]",
                        "fnstcw [{x87_after}]",
                        "ldmxcsr [{old}]",
                        "fldcw [{x87_old}]",
                        new = in(reg) &changed, x87_new = in(reg) &x87_changed,
                        after = in(reg) &mut after, x87_after = in(reg) &mut x87_after,
                        old = in(reg) &before, x87_old = in(reg) &x87_before, out("rcx") _,
                    );
                    assert_eq!((after >> 13 & 3, u32::from(x87_after) >> 10 & 3), (mode, mode));
                }
            }
        });
    });
}
