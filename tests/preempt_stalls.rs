//! Reports of threads that keep their worker from others for too long.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::ffi::{CString, c_char};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use uthread::{Runtime, Stall, StallKind};

use preempt::{hectic, on_the_last_worker, spin_until};
use watchdog::watched;

const THRESHOLD: Duration = Duration::from_millis(20);

/// A runtime that tells of the stalls of threads with this name.
fn telling(
    workers: usize,
    name: &'static str,
    tell: impl Fn(&Stall) + Send + Sync + 'static,
) -> Runtime {
    hectic(workers)
        .stall_threshold(THRESHOLD)
        .on_stall(move |stall| {
            if stall.thread_name.as_deref() == Some(name) {
                tell(stall);
            }
        })
        .build()
        .unwrap()
}

/// Runs a thread with a name next to the calling one.
fn named(name: &str, body: impl FnOnce() + Send + 'static) {
    let thread = uthread::Builder::new().name(name.to_owned()).spawn(body).unwrap();
    thread.join().unwrap();
}

#[inline(never)]
fn a_function_that_keeps_its_worker(reports: &AtomicU64, expected: u64) {
    while std::hint::black_box(reports).load(Ordering::Relaxed) < expected {
        std::hint::spin_loop();
    }
}

#[test]
fn sections_that_take_long_are_reported_once_each_with_name_and_stack() {
    for workers in [1, 2, 4] {
        let reports = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = mpsc::channel();
        let told = reports.clone();
        let runtime = telling(workers, "selfish", move |stall| {
            // A busy machine may keep the worker from its signals, which looks like the other kind.
            if stall.kind == StallKind::PreemptionDisabled {
                sender.send(stall.clone()).unwrap();
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        watched(&runtime, || {
            let reports = reports.clone();
            runtime.run(|| {
                named("selfish", move || {
                    for expected in [1, 2] {
                        let waiting = uthread::spawn(|| ());
                        uthread::without_preemption(|| {
                            a_function_that_keeps_its_worker(&reports, expected);
                        });
                        waiting.join().unwrap();
                    }
                });
            });
        });
        assert!(runtime.stats().stalls >= 2);
        drop(runtime);
        let all: Vec<Stall> = receiver.iter().collect();
        assert_eq!(all.len(), 2);
        for stall in all {
            assert!(stall.duration >= THRESHOLD);
            assert!(stall.stack.contains("a_function_that_keeps_its_worker"), "{stall}");
            let text = stall.to_string();
            assert!(
                text.starts_with("green thread 'selfish' kept preemption disabled for "),
                "{text}"
            );
        }
    }
}

/// Whether a report is one of a thread that is in a system call. (If the kernel has taken the processor from a worker
/// for long, that is reported too, and the thread is in none.)
fn is_in_a_system_call(stall: &Stall) -> bool {
    stall.kind == StallKind::Uninterruptible && stall.stack.contains("in system call number ")
}

#[test]
fn calls_with_all_signals_blocked_are_reported() {
    for workers in [1, 2, 4] {
        let (reader, writer) = std::io::pipe().unwrap();
        let reported = Arc::new(AtomicBool::new(false));
        let told = reported.clone();
        let runtime = telling(workers, "deaf", move |stall| {
            told.fetch_or(is_in_a_system_call(stall), Ordering::Relaxed);
            (&writer).write_all(b"x").unwrap();
        });
        watched(&runtime, || {
            runtime.run(|| {
                named("deaf", move || {
                    while !reported.load(Ordering::Relaxed) {
                        let before =
                            SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).unwrap();
                        // For whom the worker is needed.
                        let waiting = uthread::spawn(|| ());
                        // A report ends it.
                        kernel::read_byte(&reader);
                        before.thread_set_mask().unwrap();
                        waiting.join().unwrap();
                    }
                });
            });
        });
        assert!(runtime.stats().stalls >= 1);
    }
}

/// A pipe with a name, and nobody at either end.
struct Fifo(PathBuf);

impl Fifo {
    fn new() -> Fifo {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("uthread-stall-{}-{number}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Fifo(path)
    }

    /// As long as the file is kept, all who open it for reading, or wait for that, go on.
    fn let_readers_go(path: &Path) -> File {
        let mut both = OpenOptions::new();
        both.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    /// Starts a process that opens it before it does anything else; whoever starts it is in the kernel for as long,
    /// and no signal reaches it (vfork(2)).
    fn start_reader(&self) -> libc::pid_t {
        let path = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        let name = c"true".as_ptr().cast_mut();
        let (arguments, environment) =
            ([name, std::ptr::null_mut::<c_char>()], [std::ptr::null_mut()]);
        let mut child = 0;
        // SAFETY: the actions are initialized first and destroyed last; strings and lists end with a zero.
        unsafe {
            let mut actions = std::mem::zeroed();
            assert_eq!(libc::posix_spawn_file_actions_init(&mut actions), 0);
            let opened = libc::posix_spawn_file_actions_addopen(
                &mut actions,
                0,
                path.as_ptr(),
                libc::O_RDONLY,
                0,
            );
            assert_eq!(opened, 0);
            let started = libc::posix_spawnp(
                &mut child,
                name,
                &actions,
                std::ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            );
            assert_eq!(started, 0);
            assert_eq!(libc::posix_spawn_file_actions_destroy(&mut actions), 0);
        }
        child
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn calls_that_no_signal_reaches_are_reported() {
    for workers in [1, 2, 4] {
        let fifo = Fifo::new();
        let reported = Arc::new(AtomicBool::new(false));
        let (told, path, open) = (reported.clone(), fifo.0.clone(), Mutex::new(None));
        let children = Arc::new(AtomicU64::new(0));
        let ended = children.clone();
        let runtime = telling(workers, "forking", move |stall| {
            let mut open = open.lock().unwrap();
            if open.is_none() {
                *open = Some(Fifo::let_readers_go(&path));
                if is_in_a_system_call(stall) {
                    told.store(true, Ordering::Relaxed);
                    return;
                }
                // The kernel has kept the worker waiting at some other time. The next one that is started is to wait
                // again, but not one that was there when this was found.
                let before = ended.load(Ordering::Relaxed);
                while ended.load(Ordering::Relaxed) < before + 2 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                *open = None;
            }
        });
        let fifo = Arc::new(fifo);
        watched(&runtime, || {
            on_the_last_worker(&runtime, || {
                let (fifo, reported, children) = (fifo.clone(), reported.clone(), children.clone());
                // Needs the same worker.
                let seen = reported.clone();
                let waiting = uthread::spawn(move || spin_until(&seen));
                named("forking", move || {
                    while !reported.load(Ordering::Relaxed) {
                        let child = fifo.start_reader();
                        let mut status = 0;
                        // Does not block, so that this remains on its worker.
                        // SAFETY: the pointer is valid, and nobody else waits for the child.
                        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } != child {
                            uthread::yield_now();
                        }
                        assert_eq!(status, 0);
                        children.fetch_add(1, Ordering::Relaxed);
                    }
                });
                waiting.join().unwrap();
            });
        });
        assert!(runtime.stats().stalls >= 1);
    }
}
