//! The memory and the execution state of one green thread. Knows no scheduler.
//!
//! A **slot** is what a green thread lives in: a guarded stack whose top page also holds its thread
//! block and its control block, so that a thread that parks early costs one page. Stacks grow
//! downwards:
//!
//! ```text
//! top            ┌──────────────────────────────┐ ─┐
//!                │ struct pthread (libc's)      │  │
//! thread pointer ├──────────────────────────────┤  │ thread block: pooled with the stack,
//!                │ static TLS of all modules    │  │ handed from occupant to occupant
//!                ├──────────────────────────────┤ ─┘
//!                │ control block                │    one per occupant, see `worker::green`
//! base           ├──────────────────────────────┤ ─┐
//!                │ first frames …               │  │
//! top − 4 KiB    ├┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┤  │ the stack proper
//!                │ … deeper frames, untouched   │  │
//! limit          ├──────────────────────────────┤ ─┘
//!                │ guard page                   │
//!                └──────────────────────────────┘
//! ```
//!
//! (On AArch64 the two halves of the thread block change places.)
//!
//! - [`stack`]: slabs of equal stacks in few mappings, guard pages, overflow.
//! - [`tls`]: thread blocks.
//! - [`pool`]: slots, kept warm, shrunk when idle.
//! - [`coroutine`]: a slot that executes: suspended, running or finished.

pub(crate) mod coroutine;
pub(crate) mod overflow;
pub(crate) mod peek;
pub(crate) mod pool;
pub(crate) mod stack;
pub(crate) mod tls;
