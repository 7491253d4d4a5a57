//! The policy itself: the library's own files, which need nothing but each other.
//!
//! Not `src/sched/mod.rs`, for benchmarks are compiled as tests are, and would bring along the policy's.

// The benchmark asks only some of the questions.
#![allow(dead_code)]

#[path = "../../src/sched/group.rs"]
mod group;
#[path = "../../src/sched/line.rs"]
mod line;
#[path = "../../src/sched/queue.rs"]
mod queue;
#[path = "../../src/sched/shares.rs"]
mod shares;

pub(crate) use group::GroupId;
pub(crate) use line::Link;
pub(crate) use queue::{MOST_STOLEN, RunQueue};
pub(crate) use shares::{Choice, Elsewhere, Policy, Shares};
