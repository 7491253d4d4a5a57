//! Published software that knows nothing of green threads, on green threads.
//!
//! The tests beside this run clients and servers from crates.io as they are, hundreds of threads at a time, first on
//! OS threads, then on green ones, and compare what they answered. What the runtime counted shows that the green
//! ones parked: no worker was blocked, so no thread had to be moved to a helper.
//!
//! - [`harness`]: the same work on both kinds of threads. - [`program`]: servers that are programs of their own, one
//!   for each test. - [`tcp`]: servers that are threads of the test. - [`http`]: what some of them speak.

pub mod harness;
pub mod http;
pub mod program;
pub mod tcp;
