//! Telling a stack overflow from other faults.
//!
//! A thread that runs into its guard page gets SIGSEGV, and cannot handle it on the stack that is
//! used up: the handler runs on the OS thread's alternate stack. It does what `std`'s does for its
//! threads: a message, then abort. Faults elsewhere go to whoever handled SIGSEGV before, `std`
//! included.

use std::io::Write;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::stack::Stack;

/// What the handler must know of the green thread that runs; asked for in a signal handler.
pub(crate) struct Occupant<'a> {
    pub(crate) stack: Stack,
    /// Asked for only if it overflowed its stack, which it cannot when its name is gone.
    pub(crate) name: &'a dyn Fn() -> Option<&'a str>,
}

/// Calls its argument with the green thread that runs on this OS thread, if one does.
/// Async-signal-safe.
pub(crate) type FindOccupant = fn(&mut dyn FnMut(Occupant<'_>));

struct Handler {
    find: FindOccupant,
    previous: SigAction,
}

static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Installs the handler, once per process.
pub(crate) fn install(find: FindOccupant) {
    HANDLER.get_or_init(|| {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
        // SAFETY: the handler is async-signal-safe as far as its documentation says. A fault between
        // this call and the end of the initialisation finds no record and takes the default action.
        let previous =
            unsafe { sigaction(Signal::SIGSEGV, &action) }.expect("SIGSEGV can be handled");
        Handler { find, previous }
    });
}

/// Runs on the alternate stack. Uses no memory but its own and raw writes.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let Some(handler) = HANDLER.get() else { return default_action(signal) };
    // SAFETY: the kernel passes a valid siginfo of a fault.
    let address = unsafe { (*info).si_addr() } as usize;
    (handler.find)(&mut |occupant| {
        if occupant.stack.guards(address) {
            report(&occupant);
            std::process::abort();
        }
    });
    match handler.previous.handler() {
        // SAFETY: that is what the kernel would have called.
        SigHandler::SigAction(f) => f(signal, info, context),
        SigHandler::Handler(f) => f(signal),
        SigHandler::SigDfl | SigHandler::SigIgn => default_action(signal),
    }
}

/// Lets the faulting instruction fault again, now with the default action.
fn default_action(signal: libc::c_int) {
    // SAFETY: SIG_DFL is a valid disposition; signal(2) is async-signal-safe.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn report(occupant: &Occupant<'_>) {
    let mut line = [0_u8; 512];
    let mut rest = &mut line[..];
    let total = rest.len();
    // Names that do not fit are cut; the line before them is short enough.
    let _ = write!(
        rest,
        "\ngreen thread '{}' has overflowed its stack of {} KiB\n\
         ask for a larger one with uthread::Builder::stack_size or the environment variable UTHREAD_STACK_SIZE\n\
         fatal runtime error: stack overflow, aborting\n",
        Cut((occupant.name)().unwrap_or("<unnamed>")),
        occupant.stack.size() >> 10,
    );
    let length = total - rest.len();
    // SAFETY: the buffer is initialised. What cannot be written is lost.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length) };
}

/// A name of which at most 200 bytes are shown.
struct Cut<'a>(&'a str);

impl std::fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0[..self.0.floor_char_boundary(200)])
    }
}

/// An alternate signal stack for the calling OS thread, until dropped.
///
/// While any signal handler runs on the OS thread, wherever its frame is, there is no alternate stack
/// (`SS_AUTODISARM`, Linux 4.7, sigaltstack(2)): a handler that finds itself on it has interrupted no other one.
pub(crate) struct AlternateStack {
    memory: memmap2::MmapMut,
    previous: libc::stack_t,
}

impl AlternateStack {
    /// Bytes: room for a signal frame with AVX-512 state and for handlers that came before ours.
    const SIZE: usize = 64 << 10;

    /// # Errors
    ///
    /// No memory for it.
    pub(crate) fn install() -> std::io::Result<AlternateStack> {
        let mut memory = memmap2::MmapOptions::new().len(Self::SIZE).map_anon()?;
        let new = Self::description(memory.as_mut_ptr().cast());
        // SAFETY: the memory stays mapped until the previous stack is back.
        unsafe {
            let mut previous = std::mem::zeroed();
            if libc::sigaltstack(&new, &mut previous) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(AlternateStack { memory, previous })
        }
    }

    fn description(base: *mut libc::c_void) -> libc::stack_t {
        const SS_AUTODISARM: u32 = 1 << 31;
        libc::stack_t { ss_sp: base, ss_flags: SS_AUTODISARM.cast_signed(), ss_size: Self::SIZE }
    }

    /// Puts one in force again that is installed on the calling OS thread, which is not on it, by its addresses.
    pub(crate) fn restore(range: std::ops::Range<usize>) {
        let stack = Self::description(std::ptr::with_exposed_provenance_mut(range.start));
        // SAFETY: the memory is that of an alternate stack which stays mapped as long as it is installed.
        unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
    }

    /// Its addresses.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let range = self.memory.as_ptr_range();
        range.start.expose_provenance()..range.end.addr()
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: it was in force before. Failure would mean that it is in use: not in `drop`.
        unsafe { libc::sigaltstack(&self.previous, std::ptr::null_mut()) };
    }
}
