//! A stack that overflows ends the process with a message; other faults are as they were.
//!
//! Each scenario ends its process, and so is played in one of its own.

#[path = "common/subprocess.rs"]
mod subprocess;

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use subprocess::in_child;

const ADVICE: &str = "uthread::Builder::stack_size or the environment variable UTHREAD_STACK_SIZE";

/// Takes a kilobyte of stack, or nearly, at each level.
#[inline(never)]
fn recurse(levels: usize) -> usize {
    let frame = std::hint::black_box([levels; 100]);
    if levels == 0 { frame[0] } else { recurse(levels - 1).max(frame[1]) }
}

/// Where no memory is.
const NOWHERE: usize = 8;

fn read_from_nowhere() {
    let nowhere = std::hint::black_box(std::ptr::without_provenance::<u8>(NOWHERE));
    // SAFETY: there is none: the fault is the scenario, and ends the process.
    std::hint::black_box(unsafe { nowhere.read_volatile() });
}

fn runtime(thread_blocks: bool) -> uthread::Runtime {
    uthread::Runtime::builder().workers(4).thread_blocks(thread_blocks).build().unwrap()
}

/// Spawns a thread with neighbours, on which something goes wrong.
fn on_a_green_thread(runtime: &uthread::Runtime, builder: uthread::Builder, wrong: fn()) {
    let neighbours: Vec<_> = (0..10).map(|_| runtime.spawn(uthread::park)).collect();
    let thread = builder.spawn_in(runtime, move || {
        uthread::yield_now();
        wrong();
    });
    thread.unwrap().join().unwrap();
    drop(neighbours);
}

fn overflow() {
    std::hint::black_box(recurse(usize::MAX));
}

#[track_caller]
fn assert_reported(output: &Output, thread: &str, stack: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = format!("green thread '{thread}' has overflowed its stack of {stack}");
    assert!(stderr.contains(&message), "{stderr}");
    assert!(stderr.contains(ADVICE) && stderr.contains("fatal runtime error"), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", output.status);
}

fn named() -> uthread::Builder {
    uthread::Builder::new().name("deep diver".to_owned())
}

mod overflows {
    use super::*;

    #[test]
    fn of_named_threads_are_reported() {
        let output = in_child("overflows::of_named_threads_are_reported", &[], || {
            on_a_green_thread(&runtime(true), named(), overflow);
        });
        assert_reported(&output, "deep diver", "512 KiB");
    }

    #[test]
    fn of_unnamed_threads_are_reported() {
        let output = in_child("overflows::of_unnamed_threads_are_reported", &[], || {
            on_a_green_thread(&runtime(true), uthread::Builder::new(), overflow);
        });
        assert_reported(&output, "<unnamed>", "512 KiB");
    }

    #[test]
    fn of_stacks_of_another_size_are_reported() {
        let output = in_child("overflows::of_stacks_of_another_size_are_reported", &[], || {
            on_a_green_thread(&runtime(true), named().stack_size(100 << 10), overflow);
        });
        assert_reported(&output, "deep diver", "128 KiB");
    }

    #[test]
    fn of_threads_without_thread_blocks_are_reported() {
        let test = "overflows::of_threads_without_thread_blocks_are_reported";
        let output = in_child(test, &[], || {
            on_a_green_thread(&runtime(false), named(), overflow);
        });
        assert_reported(&output, "deep diver", "512 KiB");
    }

    #[test]
    fn of_threads_with_long_names_are_reported() {
        let name = "ä".repeat(1000);
        let output = in_child("overflows::of_threads_with_long_names_are_reported", &[], || {
            on_a_green_thread(&runtime(true), uthread::Builder::new().name(name), overflow);
        });
        assert_reported(&output, &"ä".repeat(100), "512 KiB");
    }

    #[test]
    fn of_a_pooled_stack_are_reported_with_its_occupants_name() {
        let test = "overflows::of_a_pooled_stack_are_reported_with_its_occupants_name";
        let output = in_child(test, &[], || {
            let runtime = runtime(true);
            for i in 0..100 {
                let predecessor = uthread::Builder::new().name(format!("predecessor {i}"));
                predecessor.spawn_in(&runtime, uthread::yield_now).unwrap().join().unwrap();
            }
            on_a_green_thread(&runtime, named(), overflow);
        });
        assert_reported(&output, "deep diver", "512 KiB");
    }

    #[test]
    fn of_os_threads_are_reported_by_std() {
        let output = in_child("overflows::of_os_threads_are_reported_by_std", &[], || {
            let runtime = runtime(true);
            runtime.spawn(|| ()).join().unwrap();
            let thread = std::thread::Builder::new().name("kernel diver".to_owned());
            thread.stack_size(256 << 10).spawn(overflow).unwrap().join().unwrap();
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("thread 'kernel diver'"), "{stderr}");
        assert!(stderr.contains("has overflowed its stack"), "{stderr}");
        assert!(!stderr.contains("green thread"), "{stderr}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    }

    #[test]
    fn just_avoided_leave_the_thread_alone() {
        let runtime = runtime(true);
        let deep = || recurse(300) == 300;
        let threads: Vec<_> = (0..50).map(|_| runtime.spawn(deep)).collect();
        for thread in threads {
            assert!(thread.join().unwrap());
        }
    }
}

mod other_faults {
    use super::*;

    const HANDLED: &[u8] = b"handled by the program\n";

    extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid siginfo; write and _exit are async-signal-safe.
        unsafe {
            if signal == libc::SIGSEGV && (*info).si_addr() as usize == NOWHERE {
                libc::write(libc::STDERR_FILENO, HANDLED.as_ptr().cast(), HANDLED.len());
            }
            libc::_exit(42);
        }
    }

    fn install_handler() {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
        // SAFETY: the handler is async-signal-safe.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.unwrap();
    }

    #[track_caller]
    fn assert_handled(output: &Output) {
        assert_eq!(output.status.code(), Some(42), "{output:?}");
        assert!(output.stderr.ends_with(HANDLED), "{output:?}");
    }

    #[test]
    fn reach_a_handler_that_was_there_before() {
        let test = "other_faults::reach_a_handler_that_was_there_before";
        let output = in_child(test, &[], || {
            install_handler();
            on_a_green_thread(&runtime(true), named(), read_from_nowhere);
        });
        assert_handled(&output);
    }

    #[test]
    fn reach_a_handler_that_was_there_before_without_thread_blocks_too() {
        let test = "other_faults::reach_a_handler_that_was_there_before_without_thread_blocks_too";
        let output = in_child(test, &[], || {
            install_handler();
            on_a_green_thread(&runtime(false), named(), read_from_nowhere);
        });
        assert_handled(&output);
    }

    #[test]
    fn of_os_threads_reach_a_handler_that_was_there_before() {
        let test = "other_faults::of_os_threads_reach_a_handler_that_was_there_before";
        let output = in_child(test, &[], || {
            install_handler();
            runtime(true).spawn(|| ()).join().unwrap();
            read_from_nowhere();
        });
        assert_handled(&output);
    }

    #[test]
    fn without_a_handler_end_the_process_by_their_signal() {
        let test = "other_faults::without_a_handler_end_the_process_by_their_signal";
        let output = in_child(test, &[], || {
            on_a_green_thread(&runtime(true), named(), read_from_nowhere);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("overflow"), "{stderr}");
    }
}
