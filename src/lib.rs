#![doc = include_str!("../README.md")]
#![cfg_attr(
    any(not(feature = "interpose"), loom),
    allow(dead_code, unused_imports, reason = "some parts serve the C library's functions only")
)]

mod arch;
mod atomic;
mod context;
mod group;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(all(feature = "interpose", not(loom)))]
mod interpose;
mod interposed;
mod lock;
pub mod net;
mod preempt;
mod reactor;
mod reason;
mod roster;
mod runtime;
mod sched;
mod stats;
mod thread;
mod time;
pub mod trace;
mod worker;

pub use std::thread::available_parallelism;

pub use group::{Group, GroupBuilder, schedstat};
pub use interposed::interposed;
pub use preempt::{Stall, StallKind};
pub use reason::WaitReason;
pub use roster::{
    Dump, Frame, StackTotals, StackUsage, ThreadDump, ThreadInfo, ThreadState, dump,
    dump_on_signal, stacks, threads,
};
#[cfg(feature = "prometheus")]
pub use runtime::prometheus;
pub use runtime::{Runtime, RuntimeBuilder, stats, trace, workers};
pub use stats::{
    Histogram, Metric, MetricKind, MetricValue, OpLatency, SchedStat, Stats, WorkerStat,
};
pub use thread::{
    Builder, JoinHandle, Result, Scope, ScopedJoinHandle, Thread, ThreadId, current, park,
    park_timeout, scope, spawn, yield_now,
};
pub use time::sleep;
pub use worker::{blocking, without_preemption};
