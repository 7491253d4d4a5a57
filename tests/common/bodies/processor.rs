//! Registers in use, by the compiler's code and by code that has them all.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::registers::{Registers, Vectors};

/// Rounds of a loop of a few instructions that take two slices or so.
const SPINS: u64 = 40_000;

/// All registers, and the red zone.
pub(crate) fn hold_all(seed: u64) {
    hold(seed, Vectors::detected());
}

/// All that a program for old processors has: the upper halves of its vectors are clean.
pub(crate) fn hold_few(seed: u64) {
    hold(seed, Vectors::Sse);
}

fn hold(seed: u64, vectors: Vectors) {
    let before = Registers::random(seed, vectors);
    let after = before.hold(SPINS, vectors);
    assert!(before == after, "seed {seed}, {vectors:?}: {}", before.difference(&after));
}

/// Sums in vectors of the compiler's.
#[target_feature(enable = "avx2")]
fn add_in_avx2(seed: i64) {
    let start: [__m256i; 12] =
        std::array::from_fn(|n| _mm256_set_epi64x(seed, seed ^ 1, n as i64, n as i64 ^ seed));
    let mut now = start;
    let step = _mm256_set1_epi64x(seed);
    for _ in 0..1000 {
        for v in &mut now {
            *v = _mm256_add_epi64(*v, step);
        }
    }
    let total = _mm256_set1_epi64x(seed.wrapping_mul(1000));
    for (v, s) in now.into_iter().zip(start) {
        let equal = _mm256_cmpeq_epi64(v, _mm256_add_epi64(s, total));
        assert_eq!(_mm256_movemask_epi8(equal), -1);
    }
}

/// Vectors that the compiler has assigned to registers, if the processor has AVX2.
pub(crate) fn add_vectors(seed: u64) {
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        unsafe { add_in_avx2(seed as i64) };
    }
}

/// Adds up 1 × n, 2 × n, and so on, in the 80 bits of the x87.
pub(crate) fn add_in_x87(seed: u64) {
    let (n, mut sum) = ((seed % 1_000_000) as i64, 0_i64);
    // SAFETY: memory is touched at the places given only, and the x87 stack is empty again.
    unsafe {
        asm!(
            "fild qword ptr [{n}]",
            "fldz",
            "fldz",
            "mov ecx, 20000",
            "2:",
            "fadd st(0), st(2)",
            "fadd st(1), st(0)",
            "dec ecx",
            "jnz 2b",
            "fstp st(0)",
            "fistp qword ptr [{sum}]",
            "fstp st(0)",
            n = in(reg) &n, sum = in(reg) &mut sum, out("rcx") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    assert_eq!(sum, n * 20_000 * 20_001 / 2);
}

/// The sum of 0.1, many times, in the rounding mode now in force: it depends on the mode.
#[inline(never)]
fn sum_of_tenths() -> f64 {
    let tenth = std::hint::black_box(0.1_f64);
    let mut sum = 0.0_f64;
    for _ in 0..5000 {
        // SAFETY: only the registers named are used. (The compiler takes the mode for the default one, so that it
        // must not see the addition.)
        unsafe { asm!("addsd {}, {}", inout(xmm_reg) sum, in(xmm_reg) tenth) };
    }
    sum
}

/// The sum in a rounding mode: 0 nearest, 1 down, 2 up, 3 towards zero.
fn rounded(mode: u32) -> u64 {
    let mut old = 0_u32;
    // SAFETY: the mode is put back, and between no floating-point instruction of the compiler's depends on it.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &mut old);
        let new = old & !0x6000 | mode << 13;
        asm!("ldmxcsr [{}]", in(reg) &new);
        let sum = sum_of_tenths();
        let mut now = 0_u32;
        asm!("stmxcsr [{}]", in(reg) &mut now);
        asm!("ldmxcsr [{}]", in(reg) &old);
        // Whether the last addition was exact is told by a flag.
        assert_eq!(now & !0x3f, new & !0x3f);
        sum.to_bits()
    }
}

/// Computes in a rounding mode of its own.
pub(crate) fn round(seed: u64) {
    static EXPECTED: OnceLock<[u64; 4]> = OnceLock::new();
    // By an OS thread, which nobody interrupts.
    let expected = EXPECTED.get_or_init(|| {
        std::thread::spawn(|| std::array::from_fn(|mode| rounded(mode as u32))).join().unwrap()
    });
    assert!(expected[1] < expected[2]);
    let mode = (seed % 4) as usize;
    assert_eq!(rounded(mode as u32), expected[mode]);
}

/// Computes in the red zone: fills its lower half with multiples of the seed, changes it to and fro, adds it up.
pub(crate) fn sum_in_red_zone(seed: u64) {
    let seen: u64;
    // SAFETY: only the registers named are changed. The red zone belongs to a function until it calls another;
    // the compiler takes the stack to be in use here, so that the code makes room of its own.
    unsafe {
        asm!(
            "sub rsp, 128",
            "xor eax, eax",
            "mov ecx, 8",
            "2:",
            "add rax, {seed}",
            "mov [rsp + rcx * 8 - 136], rax",
            "dec ecx",
            "jnz 2b",
            "mov ecx, 20000",
            "2:",
            "add qword ptr [rsp - 128], 1",
            "add qword ptr [rsp - 72], 3",
            "sub qword ptr [rsp - 128], 1",
            "sub qword ptr [rsp - 72], 3",
            "dec ecx",
            "jnz 2b",
            "xor eax, eax",
            "mov ecx, 8",
            "2:",
            "add rax, [rsp + rcx * 8 - 136]",
            "dec ecx",
            "jnz 2b",
            "add rsp, 128",
            seed = in(reg) seed, out("rax") seen, out("rcx") _,
        );
    }
    assert_eq!(seen, seed.wrapping_mul((1..=8).sum()));
}
