//! What an interrupted thread has in matrix tiles (AMX) is there when it goes on, on whatever worker.
#![cfg(target_arch = "x86_64")]

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use preempt::{interrupted, on_each};

/// Whether there are tiles and the kernel lets this process use them (Linux 5.16,
/// Documentation/arch/x86/xstate.rst).
fn may_use_tiles() -> bool {
    const AMX_TILE: u32 = 1 << 24;
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call has no other preconditions.
    __cpuid_count(7, 0).edx & AMX_TILE != 0
        && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) } == 0
}

/// Loads a tile, spins, and stores it.
fn through_a_tile(from: &[u8; 1024], spins: u64) -> [u8; 1024] {
    /// One tile of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        zero: [u8; 15],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }
    let mut configuration =
        Configuration { palette: 1, zero: [0; 15], bytes_per_row: [0; 16], rows: [0; 16] };
    (configuration.bytes_per_row[0], configuration.rows[0]) = (64, 16);
    let mut to = [0; 1024];
    // SAFETY: the processor has tiles, and both buffers have the tile's size. Tiles are as they were afterwards:
    // in their initial state.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "tileloadd tmm0, [{from} + {stride}]",
            "2: dec {spins}",
            "jnz 2b",
            "tilestored [{to} + {stride}], tmm0",
            "tilerelease",
            configuration = in(reg) &raw const configuration,
            from = in(reg) from.as_ptr(),
            to = in(reg) to.as_mut_ptr(),
            stride = in(reg) 64_u64,
            spins = inout(reg) spins => _,
            options(nostack),
        );
    }
    to
}

#[test]
fn matrix_tiles() {
    if !may_use_tiles() {
        eprintln!("skipped: no matrix tiles (AMX) here");
        return;
    }
    interrupted(|| {
        on_each(8, |i| {
            let pattern: [u8; 1024] = std::array::from_fn(|at| (at * 7 + i * 31) as u8);
            for _ in 0..20 {
                assert_eq!(through_a_tile(&pattern, 20_000 * (1 + i as u64 % 2)), pattern);
            }
        });
    });
}
