//! What the C library's functions say and do on green threads is what they say and do on OS threads.
//!
//! Each scenario is played on both, and must come out the same; those that wait let the neighbours on the same worker
//! run meanwhile. All of it holds without the feature `interpose`, too, but for who carries on where.

// What calls say is compared by the stage; a scenario looks at some of it once more.
#![allow(unused_must_use)]
// Children are waited for by the functions under test, by their numbers.
#![allow(clippy::zombie_processes)]

#[path = "../common/subprocess.rs"]
mod subprocess;
#[path = "../common/watchdog.rs"]
mod watchdog;

#[macro_use]
mod stage;

mod children;
mod files;
mod linking;
mod poll;
mod signals;
mod sleep;
mod sockets;
