//! A process that may open nothing more is as idle as any other.
//!
//! The limit holds for the whole process; hence a file, and so a process, of its own.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::ClockId;

const PATIENCE: Duration = Duration::from_secs(20);

/// CPU time of this process.
fn cpu_time() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap().into()
}

/// Some helpers come, and wait afterwards.
fn block_some() {
    let pause = || uthread::blocking(|| std::thread::sleep(Duration::from_millis(1)));
    let threads: Vec<_> = (0..4).map(|_| uthread::spawn(pause)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn workers_and_helpers_do_not_spin_where_no_descriptor_may_be_opened() {
    block_some();
    assert!(uthread::stats().helpers > 0);
    // Not even for as many as there are.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, most).unwrap();
    block_some();

    let began = Instant::now();
    let is_idle = || {
        let (since, before) = (Instant::now(), cpu_time());
        std::thread::sleep(Duration::from_millis(50));
        cpu_time() - before < since.elapsed() / 4
    };
    while !is_idle() {
        assert!(began.elapsed() < PATIENCE, "something spins");
    }
}
