//! Threads and processes that are started and joined.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::count;

/// Green threads, which compute, and one of which waits for the others.
pub(crate) fn spawn(seed: u64) {
    let green: Vec<_> = (0..10)
        .map(|n| {
            uthread::spawn(move || {
                count(seed ^ n);
                n ^ seed
            })
        })
        .collect();
    let all = uthread::spawn(move || {
        green.into_iter().fold(0, |sum, t| t.join().unwrap().wrapping_add(sum))
    });
    assert_eq!(all.join().unwrap(), (0..10).fold(0, |sum, n| (n ^ seed).wrapping_add(sum)));
}

/// An OS thread, which wakes this one before it ends.
pub(crate) fn spawn_os_thread(seed: u64) {
    let own = uthread::current();
    let os = std::thread::spawn(move || {
        count(seed);
        own.unpark();
        seed ^ 1
    });
    uthread::park();
    count(seed);
    assert_eq!(os.join().unwrap(), seed ^ 1);
}

/// A process that another program is started in.
pub(crate) fn spawn_process(seed: u64) {
    let child = Command::new("sh").args(["-c", &format!("exit {}", seed % 100)]).spawn();
    count(seed);
    let status = child.unwrap().wait().unwrap();
    assert_eq!(status.code(), Some((seed % 100) as i32));
}

/// A process that begins as a copy of this one, and computes as such.
pub(crate) fn fork(seed: u64) {
    let mut command = Command::new("true");
    // With a closure to be called in the child, `std` forks.
    // SAFETY: the closure neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            count(seed);
            Ok(())
        });
    }
    assert!(command.spawn().unwrap().wait().unwrap().success());
    count(seed);
}
