//! `uthread-top` where there is no terminal.
#![cfg(feature = "top")]

use std::path::PathBuf;
use std::process::{Command, Output};

use uthread::inspect::protocol::Snapshot;
use uthread::{Builder, Runtime};

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("uthread-top-{}-{name}", std::process::id()))
}

fn top(arguments: &[&str], path: &PathBuf) -> Output {
    Command::new(env!("CARGO_BIN_EXE_uthread-top"))
        .args(arguments)
        .env("UTHREAD_SOCKET", path)
        .output()
        .unwrap()
}

fn with_parked<T>(name: &str, look: impl FnOnce(&PathBuf) -> T) -> T {
    let path = socket(name);
    let runtime = Runtime::builder().workers(1).socket(&path).build().unwrap();
    let thread = Builder::new().name("patient".into()).spawn_in(&runtime, uthread::park).unwrap();
    while runtime.stats().parks == 0 {
        std::thread::yield_now();
    }
    let seen = look(&path);
    thread.thread().unpark();
    thread.join().unwrap();
    seen
}

#[test]
fn one_look_as_json_is_a_snapshot() {
    let output = with_parked("json", |path| top(&["--once", "--json"], path));
    assert!(output.status.success(), "{output:?}");
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(snapshot.pid, std::process::id());
    assert_eq!(snapshot.rows[0].name.as_deref(), Some("patient"));
}

#[test]
fn one_look_as_a_table_names_threads_and_what_they_wait_for() {
    let output = with_parked("table", |path| top(&["--once", "--sort", "id"], path));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("patient")).expect("the thread");
    assert!(line.contains("wait park") && line.contains("tests/top.rs"), "{text}");
}

#[test]
fn where_nobody_listens_it_says_so_and_fails() {
    for arguments in [&["--once"][..], &[]] {
        let output = top(arguments, &socket("nobody"));
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("was the process started with UTHREAD_SOCKET"), "{message}");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let output = with_parked("terminal", |path| top(&[], path));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--once"));
}
