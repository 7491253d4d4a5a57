//! Dumps on demand: a signal from outside.
//!
//! A server that hangs cannot be asked by its own interface. The signal is `SIGQUIT`, which terminals send for
//! Ctrl-\ and at which the virtual machines of Java and Go dump their threads, too. It ends processes by default, so
//! nothing is lost by taking it. The handler only rings a bell; an OS thread that does nothing else writes.

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::panic::catch_unwind;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::dump;
use crate::runtime::order_from_environment;
use crate::worker::Runtime;

/// Rung by the handler, which may come at any time until the process ends: never closed.
static BELL: OnceLock<Bell> = OnceLock::new();

struct Bell {
    event: EventFd,
    /// The process that listens. A child of fork(2) has the same descriptor, and nobody who listens.
    pid: libc::pid_t,
}

/// From now on the process, when it gets `SIGQUIT` (Ctrl-\ in a terminal, `kill -QUIT`), writes to stderr what all its
/// green threads are doing, as [`dump`](fn@crate::dump) shows it, thread by thread, and goes on.
///
/// The environment variable `UTHREAD_DUMP`, set to `1`, does the same when the first runtime starts, but not in
/// set-user-ID programs. Without either, the signal ends the process, as usual, and so it does in a child of fork(2),
/// where nobody would write. A handler that the program had is replaced.
///
/// # Errors
///
/// There is no descriptor or no OS thread left.
///
/// # Examples
///
/// ```
/// uthread::dump_on_signal()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump_on_signal() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    let mut failure = None;
    let installed = INSTALLED.get_or_init(|| {
        install().map_err(|e| {
            let kind = e.kind();
            failure = Some(e);
            kind
        })
    });
    failure.map_or_else(|| installed.map_err(io::Error::from), Err)
}

/// See [`dump_on_signal`].
pub(crate) fn as_environment_says() {
    static ASKED: OnceLock<()> = OnceLock::new();
    ASKED.get_or_init(|| {
        let wanted = order_from_environment("UTHREAD_DUMP").is_some_and(|value| value == "1");
        if wanted && let Err(e) = dump_on_signal() {
            // Nobody to tell is no reason to panic.
            let _ = writeln!(io::stderr(), "uthread: no dumps on SIGQUIT: {e}");
        }
    });
}

fn install() -> io::Result<()> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    // SAFETY: getpid has no preconditions.
    let bell = BELL.get_or_init(|| Bell { event, pid: unsafe { libc::getpid() } });
    std::thread::Builder::new().name("uthread-dump".to_owned()).spawn(|| answer(&bell.event))?;
    let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::Handler(ring), flags, SigSet::empty());
    // SAFETY: the handler is async-signal-safe.
    unsafe { sigaction(Signal::SIGQUIT, &action) }?;
    Ok(())
}

extern "C" fn ring(signal: libc::c_int) {
    let _errno = crate::preempt::KeepErrno::new();
    let Some(bell) = BELL.get() else { return };
    let one = 1_u64;
    // SAFETY: eight bytes that are valid. All of these functions are async-signal-safe.
    unsafe {
        if libc::getpid() == bell.pid {
            libc::write(bell.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>());
        } else {
            // It comes when this returns. (A green thread has no number of its own to raise it at.)
            libc::signal(signal, libc::SIG_DFL);
            libc::kill(libc::getpid(), signal);
        }
    }
}

/// The life of the thread that writes.
fn answer(bell: &EventFd) {
    // The program's signals are for the program's threads. What it blocks in all of them still has to come through, and
    // faults are told by those who tell them elsewhere.
    let mut signals = SigSet::all();
    [Signal::SIGQUIT, Signal::SIGSEGV, Signal::SIGBUS].into_iter().for_each(|s| signals.remove(s));
    // It fails for what is no set of signals only.
    let _ = signals.thread_set_mask();
    loop {
        match bell.read() {
            Ok(_) => {
                // A panic is a bug of this crate, told by its hook. The next one may do better.
                let _ = catch_unwind(|| write_all(&mut *stderr()));
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The descriptor. Not [`io::stderr`], whose lock a thread may hold that is stuck: this is about such threads.
fn stderr() -> ManuallyDrop<File> {
    // SAFETY: it is not closed by this, and what else may become of it is an error when it is written to.
    ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDERR_FILENO) })
}

/// Writes what the threads of all runtimes do.
fn write_all(to: &mut impl Write) -> io::Result<()> {
    for runtime in Runtime::all() {
        if let Err(e) = dump::write(&runtime, to) {
            writeln!(to, "uthread: runtime '{}': {e}", runtime.name())?;
        }
    }
    Ok(())
}
