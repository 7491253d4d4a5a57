//! Stacks of threads that run: copied by the signal's handler.
//!
//! A thread that runs changes its stack all the time. Only on its own OS thread, in the handler, does it stand
//! still. The handler copies registers and stack, in a few microseconds, and the thread goes on; who asked finds the
//! frames in the copy when it likes. So the handler needs no unwinder.
//!
//! **Who asks** may be a green thread, which may be interrupted, and then wait in the queue of a worker that is stuck.
//! So there is no lock around it that others wait for: who asks claims the probe of that one OS thread, and another
//! waits for it no longer than for an answer.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::seat::{Seat, Subject};
use crate::arch::Position;
use crate::context::peek;

/// Bytes that are copied at the most, from the top of the stack in use.
const MOST: usize = 64 << 10;
/// How long who asks waits. A thread in a system call that no signal interrupts does not answer.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long it sleeps between two looks.
const PAUSE: Duration = Duration::from_micros(20);

/// What the handler is asked, and answers.
pub(crate) struct Probe {
    /// Who runs.
    state: AtomicU8,
    buffer: AtomicPtr<u8>,
    /// The answer:
    subject: AtomicUsize,
    length: AtomicUsize,
    pc: AtomicUsize,
    sp: AtomicUsize,
    bp: AtomicUsize,
}

const IDLE: u8 = 0;
/// Somebody is about to ask, who alone takes it further.
const CLAIMED: u8 = 1;
/// It is asked.
const ASKED: u8 = 2;
/// The handler writes.
const WRITING: u8 = 3;
/// It has written.
const DONE: u8 = 4;

/// The stack of a thread that ran.
pub(crate) struct Snapshot {
    /// Address of what the seat knows of it; of its control block, that is.
    pub(crate) subject: usize,
    pub(crate) at: Position,
    /// From the stack pointer on.
    pub(crate) stack: Vec<u8>,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The OS thread does not hear signals, or somebody else asks it for long.
    Silent,
    /// It was between two threads, or on another stack.
    Elsewhere,
}

impl Probe {
    pub(super) fn new() -> Probe {
        Probe {
            state: AtomicU8::new(IDLE),
            buffer: AtomicPtr::new(std::ptr::null_mut()),
            subject: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            pc: AtomicUsize::new(0),
            sp: AtomicUsize::new(0),
            bp: AtomicUsize::new(0),
        }
    }

    /// Copies the stack of the thread that runs on the seat.
    ///
    /// # Errors
    ///
    /// See [`Missed`].
    pub(crate) fn ask(&self, seat: &Seat) -> Result<Snapshot, Missed> {
        let mut stack = vec![0; MOST];
        self.claim()?;
        self.buffer.store(stack.as_mut_ptr(), Ordering::Relaxed);
        // Release: the handler sees the buffer.
        self.state.store(ASKED, Ordering::Release);
        seat.signal();
        let asked = Instant::now();
        while self.state.load(Ordering::Acquire) != DONE {
            let withdrawn = asked.elapsed() > PATIENCE && self.step(ASKED, IDLE);
            if withdrawn {
                return Err(Missed::Silent);
            }
            // A handler that writes already will be done soon.
            std::thread::sleep(PAUSE);
        }
        let of = |word: &AtomicUsize| word.load(Ordering::Relaxed);
        stack.truncate(of(&self.length));
        let at = Position { pc: of(&self.pc), sp: of(&self.sp), bp: of(&self.bp) };
        let subject = of(&self.subject);
        // Release: the next answer is written after this one was read.
        self.state.store(IDLE, Ordering::Release);
        if stack.is_empty() { Err(Missed::Elsewhere) } else { Ok(Snapshot { subject, at, stack }) }
    }

    fn claim(&self) -> Result<(), Missed> {
        let began = Instant::now();
        while !self.step(IDLE, CLAIMED) {
            if began.elapsed() > PATIENCE {
                return Err(Missed::Silent);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Answers if asked. Called by the handler, with the thread that it has interrupted, if it has.
    #[inline]
    pub(super) fn answer(&self, running: Option<&Subject>, at: Option<Position>) {
        if self.state.load(Ordering::Relaxed) == ASKED {
            self.write(running, at);
        }
    }

    #[cold]
    fn write(&self, running: Option<&Subject>, at: Option<Position>) {
        if !self.step(ASKED, WRITING) {
            return;
        }
        let mut length = 0;
        if let (Some(subject), Some(at)) = (running, at)
            && subject.stack().contains(at.sp)
        {
            let most = subject.stack().top().as_ptr().addr() - at.sp;
            // SAFETY: the buffer has so many bytes, and nobody uses it until the state is `DONE`.
            let buffer = unsafe {
                std::slice::from_raw_parts_mut(self.buffer.load(Ordering::Relaxed), MOST)
            };
            // Other threads may write to what lies there: the kernel copies. It is async-signal-safe.
            length = peek::copy_now(at.sp, &mut buffer[..most.min(MOST)]);
            self.subject.store(std::ptr::from_ref(subject).addr(), Ordering::Relaxed);
            self.pc.store(at.pc, Ordering::Relaxed);
            self.sp.store(at.sp, Ordering::Relaxed);
            self.bp.store(at.bp, Ordering::Relaxed);
        }
        self.length.store(length, Ordering::Relaxed);
        self.state.store(DONE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_that_asks_and_does_not_go_on_keeps_nobody_for_ever() {
        let (probe, seat) = (Probe::new(), Seat::new());
        probe.claim().unwrap();
        assert_eq!(probe.ask(&seat).err(), Some(Missed::Silent));
        // The other one goes on at last.
        probe.state.store(IDLE, Ordering::Release);
        assert_eq!(probe.ask(&seat).err(), Some(Missed::Silent), "nobody hears the signal");
        assert_eq!(probe.state.load(Ordering::Relaxed), IDLE);
    }
}
