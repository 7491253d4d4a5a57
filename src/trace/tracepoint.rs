//! Static tracepoints (USDT), for tools that look from outside: bpftrace, perf, SystemTap, gdb. Feature `usdt`.
//!
//! **Problem.** The flight recorder keeps what happened last, in the process. Whoever wants to see scheduling together
//! with what the kernel does, or to count something over hours, without another line in the program, has such tools;
//! they need places to hook in that can be found, whatever the compiler inlines.
//!
//! **Choice.** Where the recorder writes, there is a nop, and a note in the ELF file says where it is and which registers
//! hold the arguments (`readelf -n`). A tool replaces the nop by a trap, as long as it runs: a microsecond or two per event.
//! Until then the nop is all: arguments are what the recorder packs at the same place, so that they are in registers
//! anyway; what is not (who the worker is, or which thread leaves) is no argument. The worker is the OS thread, by name
//! (`comm`); which thread leaves is known from the one that began. A semaphore, by which a program finds out that a tool
//! looks, would be a load and a branch at each.
//!
//! The provider is `uthread`. Threads are given by their ids ([`ThreadId::as_u64`](crate::ThreadId::as_u64)), workers by
//! their indices.
//!
//! | tracepoint | arguments | |
//! |---|---|---|
//! | `enter` | thread | A thread begins a turn; nobody ran before it. |
//! | `switch` | thread, reason | A thread begins a turn; the one before it leaves for that reason. |
//! | `leave` | reason | The thread that ran leaves; nobody follows. |
//! | `spawn` | thread | |
//! | `wake` | thread, cause | A thread's wait is over. |
//! | `tick` | thread | The worker's timer interrupts a thread, which goes on. |
//! | `steal` | worker, threads | The worker takes so many threads from that one. |
//! | `relieve` | worker, threads | So many threads are taken from that worker, for others. |
//! | `sleep`, `awake` | | The worker sleeps for want of work; it goes on. |
//! | `host`, `unhost` | thread | A helper begins to run a thread; the thread leaves it. |
//!
//! Reasons: 0 yield, 1 interrupt (preemption), 2 block (goes to a helper), 3 block again, 4 end. Causes: 0 a green thread, 1 an
//! OS thread, 2 timer, 3 timeout, 4 notified before it had waited. From 8 on follow, in both, the kinds of
//! [`WaitReason`](crate::WaitReason) in the order of its documentation: 8 accept, 9 connect, 10 recv, 11 send... With such
//! a reason a wait begins, and an op is submitted if it is one; with such a cause, an op is complete.
//!
//! ```text
//! # Why threads leave their workers
//! bpftrace -e 'usdt:./server:uthread:switch { @[arg1] = count(); } usdt:./server:uthread:leave { @[arg0] = count(); }'
//! # From wake-up to running, in microseconds
//! bpftrace -p $(pidof server) -e 'usdt:./server:uthread:wake { @t[arg0] = nsecs; }
//!     usdt:./server:uthread:enter,usdt:./server:uthread:switch /@t[arg0]/
//!     { @us = hist((nsecs - @t[arg0]) / 1000); delete(@t[arg0]); }'
//! ```
//!
//! **The race to fear** is between tool and linker. A trap that is set elsewhere breaks the instruction there, and the
//! process. `perf probe` (seen with 6.1) takes the addresses in the notes for offsets in the file, which they are not in what
//! lld links, rustc's default on x86-64; bpftrace (seen with 0.17) does not. For perf, link with
//! `-C link-arg=-Wl,-z,separate-loadable-segments`, which makes them the same.

/// A tracepoint of that name with these arguments, which are numbers in variables: nothing is to be computed for it.
#[cfg(feature = "usdt")]
macro_rules! tracepoint {
    ($name:ident $(, $argument:expr)*) => {
        // The crate's macro has the unsafe block: it is a nop, and reads registers.
        ::probe::probe!(uthread, $name $(, $argument)*)
    };
}

#[cfg(not(feature = "usdt"))]
macro_rules! tracepoint {
    ($name:ident $(, $argument:expr)*) => {};
}

pub(super) use tracepoint;

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::reason::WaitReason;
    use crate::trace::event::{Reason, WokenBy};

    #[test]
    fn codes_are_those_that_scripts_know() {
        let reasons =
            [Reason::Yield, Reason::Interrupt, Reason::Block, Reason::BlockAgain, Reason::End];
        assert_eq!(reasons.map(Reason::code), [0, 1, 2, 3, 4]);
        let causes =
            [WokenBy::Thread, WokenBy::Outside, WokenBy::Timer, WokenBy::Timeout, WokenBy::Before];
        assert_eq!(causes.map(WokenBy::code), [0, 1, 2, 3, 4]);
        let ops = [WaitReason::Accept, WaitReason::Connect, WaitReason::Recv, WaitReason::Send];
        assert_eq!(ops.map(|op| Reason::Wait(op).code()), [8, 9, 10, 11]);
        assert_eq!(ops.map(|op| WokenBy::Completion(op).code()), [8, 9, 10, 11]);
    }
}
