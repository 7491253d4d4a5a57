//! Where scenarios are played: on an OS thread, and on a green thread of a runtime with one worker.

use std::fmt::Debug;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use uthread::Runtime;

use crate::watchdog::watched;

/// A result, or `errno`.
pub(crate) type Outcome = Result<i64, i32>;

/// What `errno` is before a call, and after a success.
const UNTOUCHED: i32 = 4242;

/// What a call says, and that it changes `errno` only if it fails.
pub(crate) fn outcome(call: impl FnOnce() -> i64) -> Outcome {
    // SAFETY: the calling thread's own; asked for anew, since threads move.
    let set = |error| unsafe { *libc::__errno_location() = error };
    // SAFETY: as above.
    let get = || unsafe { *libc::__errno_location() };
    set(UNTOUCHED);
    let result = call();
    let error = get();
    set(0);
    if result == -1 {
        return Err(error);
    }
    assert_eq!(error, UNTOUCHED, "errno after a success");
    Ok(result)
}

/// The outcome of a call of the C library. The macro's user sees to it that pointers are valid, or that the kernel
/// is the only one who finds out that they are not.
macro_rules! c {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: see above.
        $crate::stage::outcome(|| unsafe { libc::$name($($argument),*) } as i64)
    }};
}

/// How often a scenario is played at most until none of its threads was taken for one that blocks its worker, which
/// happens, in whatever system call, if the machine is busy.
const ATTEMPTS: usize = 10;

/// Runtimes with one worker.
pub(crate) fn runtime() -> Runtime {
    Runtime::builder().workers(1).build().unwrap()
}

/// Plays a scenario on both kinds of threads; what came out.
#[track_caller]
pub(crate) fn on_both<T: Debug + PartialEq + Send>(scenario: impl Fn() -> T + Sync) -> T {
    let on_os = std::thread::scope(|s| s.spawn(&scenario).join().unwrap());
    let runtime = runtime();
    let on_green = watched(&runtime, || runtime.run(|| unharmed(&scenario)));
    assert_eq!(on_os, on_green, "on an OS thread, and on a green one");
    on_os
}

/// How long waits last at least.
pub(crate) const WAIT: Duration = Duration::from_millis(15);

/// Plays a scenario of two threads on both kinds: one waits, the other goes on beside it, for [`WAIT`], and then ends the
/// wait. What the first one says, and what the second.
#[track_caller]
pub(crate) fn waiting<A, B, T, U>(
    prepare: impl Fn() -> (A, B) + Sync,
    wait: impl Fn(A) -> T + Sync,
    end: impl Fn(B) -> U + Sync,
) -> (T, U)
where
    A: Send,
    B: Send,
    T: Debug + PartialEq + Send,
    U: Debug + PartialEq + Send,
{
    let on_os = {
        let (a, b) = prepare();
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                begun.store(true, Ordering::Release);
                until(&over, || wait(a))
            });
            while !begun.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            std::thread::sleep(WAIT);
            let waited = !over.load(Ordering::Acquire);
            let ended = end(b);
            (waiter.join().unwrap(), ended, waited)
        })
    };
    assert!(on_os.2, "it does not wait on an OS thread");
    for attempt in 1.. {
        let runtime = runtime();
        let on_green = watched(&runtime, || {
            runtime.run(|| {
                let (a, b) = prepare();
                let over = AtomicBool::new(false);
                uthread::scope(|s| {
                    let waiter = s.spawn(|| until(&over, || unharmed(|| wait(a))));
                    let began = Instant::now();
                    while began.elapsed() < WAIT {
                        uthread::sleep(Duration::from_millis(1));
                    }
                    let waited = !over.load(Ordering::Acquire);
                    let ended = end(b);
                    (waiter.join().unwrap(), ended, waited)
                })
            })
        });
        assert_eq!(on_os, on_green, "on an OS thread, and on a green one");
        if !uthread::interposed() || runtime.stats().helper_moves == 0 {
            break;
        }
        assert!(attempt < ATTEMPTS, "it blocks its worker:\n{}", runtime.stats());
    }
    (on_os.0, on_os.1)
}

/// Does something on a green thread. If calls do not come to the runtime they are done on a helper, since a tick may end some of
/// them.
fn unharmed<T>(f: impl FnOnce() -> T) -> T {
    if uthread::interposed() { f() } else { uthread::blocking(f) }
}

fn until<T>(over: &AtomicBool, f: impl FnOnce() -> T) -> T {
    let result = f();
    over.store(true, Ordering::Release);
    result
}

/// Plays a scenario on both kinds of threads that takes a time of its own accord: never less. On a green thread,
/// others run meanwhile.
#[track_caller]
pub(crate) fn taking<T: Debug + PartialEq + Send>(
    time: Duration,
    scenario: impl Fn() -> T + Sync,
) -> T {
    let timed = || {
        let began = Instant::now();
        let result = scenario();
        let took = began.elapsed();
        assert!(took >= time, "{took:?} instead of {time:?}");
        result
    };
    let on_os = std::thread::scope(|s| s.spawn(timed).join().unwrap());
    for attempt in 1.. {
        let runtime = runtime();
        let on_green = watched(&runtime, || {
            runtime.run(|| {
                let over = AtomicBool::new(false);
                uthread::scope(|s| {
                    let waiter = s.spawn(|| until(&over, || unharmed(timed)));
                    let mut ran = 0;
                    while !over.load(Ordering::Acquire) {
                        uthread::sleep(Duration::from_millis(1));
                        ran += 1;
                    }
                    assert!(ran > 1, "the neighbour does not run");
                    waiter.join().unwrap()
                })
            })
        });
        assert_eq!(on_os, on_green, "on an OS thread, and on a green one");
        if !uthread::interposed() || runtime.stats().helper_moves == 0 {
            break;
        }
        assert!(attempt < ATTEMPTS, "it blocks its worker:\n{}", runtime.stats());
    }
    on_os
}

/// The owner of a descriptor that a call has made.
pub(crate) fn own(made: Outcome) -> OwnedFd {
    let fd = made.map_err(std::io::Error::from_raw_os_error).unwrap();
    // SAFETY: the call has just made it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Puts a file into non-blocking mode.
pub(crate) fn never_waits(file: &impl AsRawFd) {
    let flags = c!(fcntl(file.as_raw_fd(), libc::F_GETFL)).unwrap() as i32;
    c!(fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).unwrap();
}

/// Sets an option of a socket.
pub(crate) fn set_option<T>(socket: &impl AsRawFd, option: i32, value: T) {
    let value: *const T = &value;
    let length = size_of::<T>() as libc::socklen_t;
    c!(setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value.cast(), length)).unwrap();
}

/// Bytes of which each differs from its neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A folder that is removed at the end.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("interpose-{}-{number}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// The path of something in it.
    pub(crate) fn path(&self, name: &str) -> std::ffi::CString {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::CString::new(self.0.join(name).as_os_str().as_bytes()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
