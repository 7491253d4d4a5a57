#![doc = include_str!("../README.md")]

mod arch;
mod atomic;
mod context;
mod group;
#[cfg(feature = "inspect")]
pub mod inspect;
mod lock;
pub mod net;
mod preempt;
mod reactor;
mod roster;
mod runtime;
mod sched;
mod stats;
mod thread;
mod time;
mod worker;

pub use std::thread::available_parallelism;

pub use group::{Group, GroupBuilder, schedstat};
pub use preempt::{Stall, StallKind};
pub use roster::{Dump, Frame, StackUsage, ThreadDump, ThreadInfo, ThreadState, dump, threads};
pub use runtime::{Runtime, RuntimeBuilder, stats};
pub use stats::Stats;
pub use thread::{
    Builder, JoinHandle, Result, Scope, ScopedJoinHandle, Thread, ThreadId, current, park,
    park_timeout, scope, spawn, yield_now,
};
pub use time::sleep;
pub use worker::{SchedStat, blocking, without_preemption};
