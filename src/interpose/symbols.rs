//! The functions of the C library that this crate defines.
//!
//! The declarations are the C library's (x86-64 and AArch64, 64-bit `off_t`). `syscall` is variadic in C; on both
//! architectures its arguments arrive as those of a function with seven.

use std::ffi::{c_int, c_long, c_uint};

use libc::{clockid_t, timespec, useconds_t};

use super::answer::{Answer, set_errno};
use super::next::Next;
use super::{PROBE, caller, futex, sleep};

/// Defines functions. Each has the C library's name and signature; on a green thread the expression on the right
/// answers, elsewhere, or if it says so, the C library.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $answer:expr;)+) => {
        /// The C library's functions.
        mod next {
            use super::*;
            $(
                #[allow(non_upper_case_globals)]
                // SAFETY: the type is that of the function as the C library declares it.
                pub(super) static $name: Next<unsafe extern "C" fn($($type),*) -> $result> = unsafe {
                    Next::new(
                        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => unreachable!(),
                        }
                    )
                };
            )+
        }

        $(
            #[doc = concat!("See ", stringify!($name), "(2) or (3).")]
            ///
            /// # Safety
            ///
            /// As the C library's.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                if let Some(thread) = caller::green() {
                    // SAFETY: what the caller owes the C library's function is what the replacement needs.
                    #[allow(unused_unsafe)]
                    let answer = unsafe { $answer };
                    if !matches!(answer, Answer::Forward) {
                        caller::count(thread);
                    }
                    match answer {
                        Answer::Done(value) => return value as $result,
                        Answer::Failed(error) => {
                            set_errno(error);
                            return -1 as _;
                        }
                        Answer::Forward => {}
                    }
                }
                // SAFETY: as the caller says.
                unsafe { next::$name.get()($($argument),*) }
            }
        )+

        /// Looks all of them up, when the program is loaded.
        extern "C" fn look_up() {
            $(next::$name.look_up();)+
            futex::look_up();
        }
    };
}

functions! {
    fn nanosleep(request: *const timespec, rest: *mut timespec) -> c_int = sleep::nanosleep(request, rest);
    fn clock_nanosleep(clock: clockid_t, flags: c_int, request: *const timespec, rest: *mut timespec) -> c_int
        = sleep::clock_nanosleep(clock, flags, request, rest);
    fn usleep(microseconds: useconds_t) -> c_int = sleep::usleep(microseconds);
    fn sleep(seconds: c_uint) -> c_uint = sleep::sleep(seconds);
    fn sched_yield() -> c_int = sleep::sched_yield();
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

/// See syscall(2).
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let answer = match number {
        // SAFETY: what the caller owes the system call is what the replacement needs.
        libc::SYS_futex => unsafe { futex::futex(a, b as c_int, c as u32, d, e, f as u32) },
        PROBE => Answer::Done(PROBE as isize),
        _ => Answer::Forward,
    };
    match answer {
        Answer::Done(value) => value as c_long,
        Answer::Failed(error) => {
            set_errno(error);
            -1
        }
        // SAFETY: as the caller says.
        Answer::Forward => unsafe { futex::SYSCALL.get()(number, a, b, c, d, e, f) },
    }
}
