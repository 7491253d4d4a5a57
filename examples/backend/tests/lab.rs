//! The lab in its short form: that it measures all of it, that every answer is right, and that nothing is left behind.
//! What it measures is not judged: the machine may be busy.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The lab, with a directory for what it makes while it runs, and its arguments.
fn lab(directory: &Path, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let example = profile.join("examples/lab");
    assert!(example.exists(), "{} is missing: cargo build --example lab", example.display());
    let mut lab = Command::new(example);
    lab.env("TMPDIR", directory).arg("--quick").args(arguments);
    lab
}

fn rows<'a>(report: &'a Value, table: &str) -> &'a Vec<Value> {
    report[table].as_array().unwrap_or_else(|| panic!("no table {table}"))
}

#[test]
fn every_way_is_measured_and_every_answer_is_right() {
    let (temporary, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = folder.path().to_str().unwrap();
    let output = lab(temporary.path(), &["--folder", path]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);

    let text = fs::read_to_string(folder.path().join("lab.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(rows(&report, "failures").is_empty(), "{text}");
    let names = |table: &str, column: &str| -> Vec<String> {
        let name = |row: &Value| row[column].as_str().unwrap().to_owned();
        rows(&report, table).iter().map(name).collect()
    };
    assert_eq!(names("waiting", "way"), ["OneAtATime", "OsThreads", "Green", "Tokio"]);
    assert_eq!(names("crowd", "way"), ["OsThreads", "Green", "Tokio"]);
    assert_eq!(names("mixed", "variant"), ["Green", "Tokio"]);
    assert_eq!(names("workers", "kind"), ["Waiting", "Waiting", "Computing", "Computing"]);

    let phases = rows(&report, "mixed").iter().flat_map(|row| [&row["idle"], &row["loaded"]]);
    let others = ["waiting", "crowd", "workers"].map(|table| rows(&report, table));
    for row in others.into_iter().flatten().chain(phases) {
        assert_eq!(row["errors"], 0, "{row}");
    }
    for row in rows(&report, "crowd") {
        assert_eq!(row["answered"], row["requests"], "{row}");
    }

    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("no answer is lost or wrong: 0 are"), "{told}");
    let page = fs::read_to_string(folder.path().join("lab.md")).unwrap();
    for plot in ["throughput-", "cpu-", "memory", "mixed", "workers"] {
        let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let mut plots = files.filter(|file| file.to_str().unwrap().starts_with(plot));
        assert!(plots.next().is_some(), "no plot {plot}");
        assert!(page.contains(plot), "the page shows no plot {plot}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn an_interrupted_lab_leaves_nothing_running_and_nothing_behind() {
    let temporary = TempDir::new().unwrap();
    let mut lab = lab(temporary.path(), &["--seconds", "60", "--only", "workers"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(lab.stderr.take().unwrap());
    let mut step = String::new();
    // When the second measurement begins, the first one's processes have come and gone.
    while !step.contains("[ 2/") {
        step.clear();
        assert_ne!(progress.read_line(&mut step).unwrap(), 0, "it ended early");
    }
    kill(Pid::from_raw(lab.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(130));
    // Its end is that of the last process that has it.
    progress.read_to_string(&mut String::new()).unwrap();
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left behind");
}
