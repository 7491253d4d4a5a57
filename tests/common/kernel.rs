//! Calls that block in the kernel, whatever the runtime does about the C library's functions: system calls of which
//! it does not hear.

#![allow(dead_code)] // each test file uses a part

use std::os::fd::AsRawFd;

/// Reads one byte.
pub(crate) fn read_byte(file: &impl AsRawFd) -> u8 {
    let mut byte = 0_u8;
    // SAFETY: the pointer is to one byte.
    while unsafe { libc::syscall(libc::SYS_read, file.as_raw_fd(), &raw mut byte, 1) } != 1 {
        assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
    }
    byte
}

/// `ppoll` of nothing, without a wait, with no signal blocked.
pub(crate) fn let_signals_in() {
    let (none, at_once) = (0_u64, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the pointers are valid; the kernel's set of signals is eight bytes.
    unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            0_usize,
            0_usize,
            &raw const at_once,
            &raw const none,
            8_usize,
        )
    };
}
