//! A test that hangs fails, and says what the runtime was doing.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use uthread::Runtime;

/// Far more than any scenario needs on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a scenario that uses the runtime, and ends the process if it takes too long.
pub(crate) fn watched<T>(runtime: &Runtime, scenario: impl FnOnce() -> T) -> T {
    let (over, ended) = mpsc::channel::<()>();
    let test = std::thread::current().name().unwrap_or("a scenario").to_owned();
    std::thread::scope(|s| {
        s.spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                // Not a macro: what those print is kept by the harness, and lost by the abort.
                let _ = writeln!(std::io::stderr(), "{test} hangs:\n{}", runtime.stats());
                std::process::abort();
            }
        });
        // Dropped when the scenario ends, by a panic too.
        let _over = over;
        scenario()
    })
}
