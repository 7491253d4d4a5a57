//! What the documentation of `std::sync`, `std::thread::park` and futex(2) says about waiting holds: on green
//! threads, among OS threads, and between the two.
//!
//! A scenario knows nothing of its participants; each is played by every [`Cast`](cast::Cast). Where the C library's
//! functions come to the crate (`uthread::interposed`), none may take the monitor's help.

#[path = "../common/watchdog.rs"]
mod watchdog;

#[macro_use]
mod cast;

mod barrier;
mod condvar;
mod crates;
mod futex;
mod mpsc;
mod mutex;
mod once;
mod park;
mod rwlock;
mod stress;
mod unaided;
