//! The `drop_in` example under load: a process of its own, which starts another.

use std::process::Command;

fn under_load(arguments: &[&str]) -> String {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let example = profile.join("examples/drop_in");
    assert!(example.exists(), "{} is missing: cargo build --example drop_in", example.display());
    let output = Command::new(example)
        .args(["--connections", "200", "--requests", "10", "--delay", "1"])
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(errors.is_empty(), "{errors}");
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains(": 200 connections ("), "{report}");
    assert!(report.contains(" 2000 requests in "), "{report}");
    report
}

/// A number in the report.
fn number(report: &str, before: &str) -> u64 {
    let (_, rest) = report.split_once(before).unwrap();
    rest.split_once(|c: char| !c.is_ascii_digit()).unwrap().0.parse().unwrap()
}

#[test]
fn two_hundred_connections_take_an_os_thread_each_with_std() {
    let report = under_load(&["--os-threads"]);
    assert!(number(&report, "OS threads of the server: ") >= 200, "{report}");
}

#[test]
#[cfg(feature = "interpose")]
fn two_hundred_connections_take_a_few_os_threads_with_one_line_changed() {
    let report = under_load(&[]);
    // The program's own, the workers, the monitor.
    let cores = uthread::available_parallelism().unwrap().get() as u64;
    assert!(number(&report, "OS threads of the server: ") <= cores + 8, "{report}");
    assert!(number(&report, "done at once: ") >= 2 * 2200, "{report}");
    assert_eq!(number(&report, "blocked a worker: "), 0, "{report}");
}
