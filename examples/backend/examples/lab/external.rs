//! The external service: the one of this package, which only waits.

use std::io;
use std::ops::RangeInclusive;

use uthread_backend::api::{Latency, server};

use crate::child::answer_orders;
use crate::usage::Counted;

/// The process's life.
pub(crate) fn run(latency_ms: &RangeInclusive<u64>) -> io::Result<()> {
    let latency = Latency::of_millis(*latency_ms.start(), *latency_ms.end());
    let server = server::bind(([127, 0, 0, 1], 0).into(), latency)?;
    answer_orders(server.local_addr()?, Counted::default)?;
    uthread::spawn(move || server.run()).join().expect("the server does not panic");
    Ok(())
}
