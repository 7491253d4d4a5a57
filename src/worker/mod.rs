//! Workers: the OS threads that run green threads.
//!
//! **Vocabulary.** A worker *owns* a green thread from the moment it takes it out of a run queue (or
//! makes it runnable itself) until it *publishes* it: puts it into a queue, or commits it to a park
//! word. A *round* is a stretch of switches between two looks at the ring and the timers.
//!
//! **Problem.** M:N scheduling: green threads wake on any worker, idle workers take from busy ones,
//! and each worker drives a ring that only it may touch. A switch should cost little more than its
//! floor, one stack switch and one write of the thread pointer.
//!
//! **The thread pointer.** Between two green threads the scheduler's own code runs on the worker's
//! stack. Putting the worker's thread pointer back for it would double the dearest part of a switch, so
//! that code uses no thread-local storage: no allocation, no `errno`, no `thread_local!`, no lock of
//! `std`'s. Only the slow path (polling, stealing, sleeping) puts the worker's pointer back first. And:
//!
//! > **A green thread is published only after the thread pointer has left it.**
//!
//! Else it could run on another worker while this one still has its thread-locals in force, and a
//! signal handler that arrives here would write to the `errno` of a thread that runs there. So a switch
//! takes the next thread out first, installs it, and publishes the old one last. There is one write of
//! the thread pointer per switch.
//!
//! The compiler keeps addresses of thread-locals across calls within a function. Code that runs on
//! both sides of a change of the thread pointer therefore uses none; what needs some is in functions
//! that are not inlined.
//!
//! **The races to fear** are argued where they live: a wake-up that comes while its thread is still
//! parking ([`parker`]); work that arrives while a worker goes to sleep ([`idle`]); a waker that
//! touches the runtime after the thread it woke has ended and the runtime with it ([`holders`]).
//!
//! - [`green`]: the control block. - [`run`]: the loop. - [`turn`]: how long threads run, and when they are
//!   interrupted. - [`lease`]: which group is served. - [`group`]: the process's groups. - [`account`]: what was
//!   used. - [`state`]: what a thread is doing. - [`mod@wait`]: what a thread calls to wait, and wakers.
//! - [`runtime`]: workers together, start and end. - [`helper`]: for threads that block in the kernel. - [`monitor`]:
//!   the OS thread that watches. - [`parker`], [`idle`], [`claims`], [`wait_table`], [`holders`]: the lock-free parts, with loom
//!   models.
//! - [`census`]: all threads. - [`tape`]: recordings for tests.

mod account;
pub(crate) mod census;
mod claims;
pub(crate) mod green;
pub(crate) mod group;
mod helper;
mod holders;
pub(crate) mod idle;
mod lease;
mod monitor;
pub(crate) mod parker;
mod run;
mod runtime;
mod state;
mod tape;
#[cfg(all(test, not(loom)))]
mod tests;
mod turn;
mod wait;
#[cfg(any(feature = "interpose", loom))]
pub(crate) mod wait_table;

#[cfg(feature = "interpose")]
pub(crate) use green::GreenRef;
pub(crate) use green::{Identity, current};
pub use helper::blocking;
#[cfg(all(feature = "interpose", not(loom)))]
pub(crate) use monitor::poke_all;
pub(crate) use run::Worker;
pub(crate) use runtime::{Config, Runtime};
pub(crate) use state::State;
#[cfg(all(test, not(loom)))]
pub(crate) use tape::Recording;
pub(crate) use turn::reschedule;
pub use wait::without_preemption;
pub(crate) use wait::{
    Deadline, finish_thread_locals, notify, on_green_thread, own_identity, perform, sleep_until,
    wait, yield_now,
};
#[cfg(all(feature = "interpose", not(loom)))]
pub(crate) use wait::{end_wait, wait_by_address};
