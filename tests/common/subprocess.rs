//! Scenarios that a process does not survive, or that change all of it.
//!
//! The test's executable is run again, for that one test alone, which then plays the scenario.

use std::process::{Command, Output};

/// Set in the process that plays the scenario.
const CHILD: &str = "UTHREAD_TEST_CHILD";

/// Seconds after which a child that hangs is killed, by SIGALRM: more than its own watchdog takes.
const LIMIT: u32 = 90;

/// Plays a scenario in a process of its own, with these variables in its environment; how that ended.
/// Called in a test, whose name it takes.
pub(crate) fn in_child(
    test: &str,
    environment: &[(&str, &str)],
    scenario: impl FnOnce(),
) -> Output {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: alarm has no preconditions.
        unsafe { libc::alarm(LIMIT) };
        scenario();
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("running 1 test"), "there is no test {test}: {stdout}");
    output
}
