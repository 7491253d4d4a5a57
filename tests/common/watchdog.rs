//! A test that hangs fails, and says what the runtime was doing.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use uthread::Runtime;

/// Far more than any scenario needs on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a scenario that uses the runtime, and ends the process if it takes too long.
pub(crate) fn watched<T>(runtime: &Runtime, scenario: impl FnOnce() -> T) -> T {
    let (over, ended) = mpsc::channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a scenario hangs:\n{}", runtime.stats());
                std::process::abort();
            }
        });
        // Dropped when the scenario ends, by a panic too.
        let _over = over;
        scenario()
    })
}
