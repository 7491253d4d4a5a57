//! Printing, panicking and backtraces.

use std::cell::Cell;
use std::hint::black_box;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::preempt::checksum;

/// What each line of [`print`] begins with.
pub(crate) const LINE: &str = "whole line: ";

/// How many lines [`print`] has printed.
pub(crate) static PRINTED: AtomicU64 = AtomicU64::new(0);

/// Prints lines with their checksums: at once, in pieces, on both streams. Some are longer than the buffer of
/// stdout.
pub(crate) fn print(seed: u64) {
    for n in 0..12 {
        let mut text = format!("{LINE}{seed:x} {n} ");
        for word in 0..3 + (seed.wrapping_mul(31) + n * 7) % 120 {
            text += &format!("{:x}.", seed.wrapping_mul(word));
        }
        let sum = checksum(text.as_bytes());
        match n % 4 {
            0 => {
                let mut out = std::io::stdout().lock();
                for piece in text.as_bytes().chunks(50) {
                    out.write_all(piece).unwrap();
                }
                writeln!(out, "#{sum}").unwrap();
            }
            // In one piece: who panics at the same time writes to stderr without its lock.
            1 => std::io::stderr().write_all(format!("{text}#{sum}\n").as_bytes()).unwrap(),
            _ => println!("{text}#{sum}"),
        }
        PRINTED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Checks the lines of [`print`] in what a process has put out; how many there are.
#[track_caller]
pub(crate) fn check_printed(output: &str) -> u64 {
    let lines = output.lines().filter_map(|line| line.find(LINE).map(|at| &line[at..]));
    lines.fold(0, |count, line| {
        let (text, sum) = line.split_once('#').unwrap_or((line, "nothing"));
        assert_eq!(checksum(text.as_bytes()).to_string(), sum, "{line}");
        count + 1
    })
}

/// What the message of each panic of [`panic_aloud`] begins with.
pub(crate) const PANICS: &str = "this panic is caught: ";

/// How many panics [`panic_aloud`] has made.
pub(crate) static PANICKED: AtomicU64 = AtomicU64::new(0);

/// Panics, with a message that is formatted. The hook prints it, with the stack if the environment wants it.
pub(crate) fn panic_aloud(seed: u64) {
    #[inline(never)]
    fn innermost(seed: u64) -> ! {
        panic!("{PANICS}{seed:#x}")
    }

    let payload = catch_unwind(|| innermost(seed)).unwrap_err();
    assert_eq!(*payload.downcast::<String>().unwrap(), format!("{PANICS}{seed:#x}"));
    assert!(!std::thread::panicking());
    PANICKED.fetch_add(1, Ordering::Relaxed);
}

/// Unwinds through frames that clean up, and panics again while it does.
pub(crate) fn unwind(seed: u64) {
    struct Cleaner<'a>(&'a Cell<u64>);

    impl Drop for Cleaner<'_> {
        fn drop(&mut self) {
            let inner = catch_unwind(|| resume_unwind(Box::new(7_u64))).unwrap_err();
            assert_eq!(*inner.downcast::<u64>().unwrap(), 7);
            self.0.set(self.0.get() + 1);
        }
    }

    #[inline(never)]
    fn down(depth: u64, seed: u64, cleaned: &Cell<u64>) -> u64 {
        let _cleaner = Cleaner(cleaned);
        if depth == 0 { resume_unwind(Box::new(seed)) } else { down(depth - 1, seed, cleaned) + 1 }
    }

    let (depth, cleaned) = (seed % 20, Cell::new(0));
    let payload = catch_unwind(AssertUnwindSafe(|| down(depth, seed, &cleaned))).unwrap_err();
    assert_eq!(*payload.downcast::<u64>().unwrap(), seed);
    assert_eq!(cleaned.get(), depth + 1);
    assert!(!std::thread::panicking());
}

/// Captures the stack, without names, from ever deeper frames.
pub(crate) fn capture(seed: u64) {
    #[inline(never)]
    fn down(depth: u64) -> u64 {
        let backtrace = std::backtrace::Backtrace::force_capture();
        assert_eq!(black_box(backtrace).status(), std::backtrace::BacktraceStatus::Captured);
        if depth == 0 { 0 } else { down(depth - 1) + 1 }
    }
    let depth = 20 + seed % 20;
    assert_eq!(down(depth), depth);
}
