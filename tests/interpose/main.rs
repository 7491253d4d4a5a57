//! What the C library's functions say and do on green threads is what they say and do on OS threads.
//!
//! Each scenario is played on both, and must come out the same; those that wait let the neighbours on the same worker
//! run meanwhile. All of it holds without the feature `interpose`, too, but for who carries on where.

#[path = "../common/subprocess.rs"]
mod subprocess;
#[path = "../common/watchdog.rs"]
mod watchdog;

#[macro_use]
mod stage;

mod children;
mod files;
mod poll;
mod sleep;
mod sockets;
