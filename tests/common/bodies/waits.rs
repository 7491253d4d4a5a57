//! Calls that block in the kernel, made directly, and neighbours that end that.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};

use crate::preempt::{Random, checksum};

/// How a call that blocks is played, together with what ends that.
pub(crate) trait Stage {
    /// Calls `block` with one half of what `prepare` gives, and `release` with the other half on another thread:
    /// any number of times.
    fn play<A: Send, B: Send>(
        &self,
        prepare: impl Fn() -> (A, B) + Sync,
        block: impl Fn(A) + Sync,
        release: impl Fn(B) + Sync,
    );
}

/// One thread that blocks, and one that ends that, whichever is first.
pub(crate) struct Pair;

impl Stage for Pair {
    fn play<A: Send, B: Send>(
        &self,
        prepare: impl Fn() -> (A, B) + Sync,
        block: impl Fn(A) + Sync,
        release: impl Fn(B) + Sync,
    ) {
        let (a, b) = prepare();
        uthread::scope(|s| {
            s.spawn(|| release(b));
            block(a);
        });
    }
}

/// A name for a file that does not exist.
fn fresh_path() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("uthread-blocking-{}-{number}", std::process::id()))
}

/// Calls a system call again until it is not interrupted, as one must for those that a signal always ends
/// (signal(7)).
fn until_done(mut call: impl FnMut() -> libc::c_int) -> libc::c_int {
    loop {
        let result = call();
        if result != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return result;
        }
    }
}

/// A read by std, which goes on until it has all.
pub(crate) fn read(stage: &impl Stage) {
    stage.play(
        || io::pipe().unwrap(),
        |mut reader| {
            let mut data = [0; 5];
            reader.read_exact(&mut data).unwrap();
            assert_eq!(&data, b"whole");
        },
        |mut writer| writer.write_all(b"whole").unwrap(),
    );
}

/// A read by libc.
pub(crate) fn read_once(stage: &impl Stage) {
    stage.play(
        || io::pipe().unwrap(),
        |reader| {
            let mut data = [0_u8; 100];
            // SAFETY: the buffer is as long as said.
            let n = unsafe { libc::read(reader.as_raw_fd(), data.as_mut_ptr().cast(), data.len()) };
            assert_eq!((n, &data[..5]), (5, b"whole".as_slice()));
        },
        |mut writer| writer.write_all(b"whole").unwrap(),
    );
}

/// A write that blocks now and again.
pub(crate) fn write(stage: &impl Stage) {
    const SIZE: usize = 300_000;
    let bytes = |seed| {
        let mut random = Random(seed);
        (0..SIZE).map(move |_| random.next() as u8).collect::<Vec<u8>>()
    };
    stage.play(
        || io::pipe().map(|(reader, writer)| (writer, reader)).unwrap(),
        |mut writer| writer.write_all(&bytes(1)).unwrap(),
        |mut reader| {
            let mut all = vec![0; SIZE];
            reader.read_exact(&mut all).unwrap();
            assert_eq!(checksum(&all), checksum(&bytes(1)));
        },
    );
}

/// Reads of a socket until its end.
pub(crate) fn receive(stage: &impl Stage) {
    stage.play(
        || UnixStream::pair().unwrap(),
        |mut here| {
            let mut data = String::new();
            here.read_to_string(&mut data).unwrap();
            assert_eq!(data, "in two parts");
        },
        |mut there| {
            there.write_all(b"in two").unwrap();
            uthread::yield_now();
            there.write_all(b" parts").unwrap();
        },
    );
}

/// A connection, and what it brings.
pub(crate) fn accept(stage: &impl Stage) {
    stage.play(
        || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            (listener, address)
        },
        |listener| {
            let (mut connection, _) = listener.accept().unwrap();
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [7]);
        },
        |address| TcpStream::connect(address).unwrap().write_all(&[7]).unwrap(),
    );
}

/// `poll` is not restarted after a signal.
pub(crate) fn poll(stage: &impl Stage) {
    stage.play(
        || io::pipe().unwrap(),
        |reader| {
            let mut poll =
                libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid entry.
            assert_eq!(until_done(|| unsafe { libc::poll(&mut poll, 1, -1) }), 1);
            assert_eq!(poll.revents & libc::POLLIN, libc::POLLIN);
        },
        |mut writer| writer.write_all(b"x").unwrap(),
    );
}

/// Nor is `epoll_wait`.
pub(crate) fn epoll(stage: &impl Stage) {
    stage.play(
        || io::pipe().unwrap(),
        |reader| {
            // SAFETY: the descriptor is new, and the pointers are to valid events.
            unsafe {
                let set = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
                let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 9 };
                let (set, fd) = (set.as_raw_fd(), reader.as_raw_fd());
                assert_eq!(libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event), 0);
                event.u64 = 0;
                assert_eq!(until_done(|| libc::epoll_wait(set, &mut event, 1, -1)), 1);
                assert_eq!({ event.u64 }, 9);
            }
        },
        |mut writer| writer.write_all(b"x").unwrap(),
    );
}

/// `flock`, on a lock that a neighbour holds.
pub(crate) fn lock_file(stage: &impl Stage) {
    stage.play(
        || {
            let path = fresh_path();
            let (wanted, held) = (File::create(&path).unwrap(), File::create(&path).unwrap());
            std::fs::remove_file(path).unwrap();
            // SAFETY: the descriptor is open.
            assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_EX) }, 0);
            (wanted, held)
        },
        |wanted| {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::flock(wanted.as_raw_fd(), libc::LOCK_EX) }, 0);
        },
        // SAFETY: as above.
        |held| assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_UN) }, 0),
    );
}

/// `fcntl`, on a lock that a neighbour holds.
pub(crate) fn lock_part_of_file(stage: &impl Stage) {
    fn set(file: &File, command: libc::c_int, kind: libc::c_int) -> libc::c_int {
        // SAFETY: plain numbers, for which zero is a value; the pointer is valid.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (kind as libc::c_short, 10);
            libc::fcntl(file.as_raw_fd(), command, &lock)
        }
    }
    stage.play(
        || {
            let path = fresh_path();
            let (wanted, held) = (File::create(&path).unwrap(), File::create(&path).unwrap());
            std::fs::remove_file(path).unwrap();
            assert_eq!(set(&held, libc::F_OFD_SETLK, libc::F_WRLCK), 0);
            (wanted, held)
        },
        |wanted| assert_eq!(set(&wanted, libc::F_OFD_SETLKW, libc::F_WRLCK), 0),
        |held| assert_eq!(set(&held, libc::F_OFD_SETLK, libc::F_UNLCK), 0),
    );
}

/// `open`, which waits for the other end.
pub(crate) fn open(stage: &impl Stage) {
    stage.play(
        || {
            let path = fresh_path();
            let name = CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the name ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            (path.clone(), path)
        },
        |path| {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "by name");
        },
        |path| {
            std::fs::write(&path, "by name").unwrap();
            std::fs::remove_file(path).unwrap();
        },
    );
}

/// `waitpid` by libc.
pub(crate) fn wait_for_child(stage: &impl Stage) {
    stage.play(
        || {
            let mut cat = Command::new("cat");
            let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let input = child.stdin.take();
            (child, input)
        },
        |child| {
            let mut status = 0;
            let own = child.id() as libc::pid_t;
            // SAFETY: the pointer is valid. Nobody else waits for the child.
            assert_eq!(until_done(|| unsafe { libc::waitpid(own, &mut status, 0) }), own);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
        },
        drop,
    );
}

/// `nanosleep` by libc.
pub(crate) fn sleep(stage: &impl Stage) {
    stage.play(
        || {
            let awake = Arc::new(AtomicBool::new(false));
            (awake.clone(), awake)
        },
        |awake| {
            while !awake.load(Ordering::Relaxed) {
                let mut time = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                let at = &raw mut time;
                // What is left is written to the same place. SAFETY: the pointer is valid.
                assert_eq!(until_done(|| unsafe { libc::nanosleep(at, at) }), 0);
            }
        },
        |awake| awake.store(true, Ordering::Relaxed),
    );
}

/// A `Mutex` of std.
pub(crate) fn lock(stage: &impl Stage) {
    stage.play(
        || {
            let lock = Arc::new(Mutex::new(0));
            let (release, released) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let theirs = lock.clone();
            let holder = std::thread::spawn(move || {
                let mut guard = theirs.lock().unwrap();
                tell.send(()).unwrap();
                released.recv().unwrap();
                *guard = 5;
            });
            told.recv().unwrap();
            (lock, (release, holder))
        },
        |lock| assert_eq!(*lock.lock().unwrap(), 5),
        |(release, holder)| {
            release.send(()).unwrap();
            holder.join().unwrap();
        },
    );
}

/// `pthread_join`.
pub(crate) fn join(stage: &impl Stage) {
    stage.play(
        || {
            let (release, released) = mpsc::channel::<()>();
            (std::thread::spawn(move || released.recv().is_err()), release)
        },
        |thread| assert!(thread.join().unwrap()),
        drop,
    );
}

/// A read into the middle of what lies on the stack.
pub(crate) fn read_into_stack(stage: &impl Stage) {
    thread_local!(static OWN: Cell<u64> = const { Cell::new(0) });
    stage.play(
        || io::pipe().unwrap(),
        |mut reader| {
            OWN.set(4711);
            let mut local = [0_u8; 2000];
            let (first, rest) = local.split_at_mut(1000);
            reader.read_exact(rest).unwrap();
            first.copy_from_slice(rest);
            assert_eq!(checksum(first), checksum(&[9; 1000]));
            assert_eq!(OWN.get(), 4711);
        },
        |mut writer| writer.write_all(&[9; 1000]).unwrap(),
    );
}

/// A channel of std's.
pub(crate) fn receive_from_channel(stage: &impl Stage) {
    stage.play(
        || {
            let (sender, receiver) = mpsc::channel();
            (receiver, sender)
        },
        |receiver| assert_eq!(receiver.recv(), Ok(3)),
        |sender| sender.send(3).unwrap(),
    );
}

/// A condition variable of std's.
pub(crate) fn wait_for_condvar(stage: &impl Stage) {
    stage.play(
        || {
            let pair = Arc::new((Mutex::new(false), Condvar::new()));
            (pair.clone(), pair)
        },
        |pair| drop(pair.1.wait_while(pair.0.lock().unwrap(), |set| !*set).unwrap()),
        |pair| {
            *pair.0.lock().unwrap() = true;
            pair.1.notify_all();
        },
    );
}

/// A barrier of std's.
pub(crate) fn wait_at_barrier(stage: &impl Stage) {
    stage.play(
        || {
            let barrier = Arc::new(Barrier::new(2));
            (barrier.clone(), barrier)
        },
        |barrier| {
            barrier.wait();
        },
        |barrier| {
            barrier.wait();
        },
    );
}

/// The token of std's threads, under a green one.
pub(crate) fn park_in_std(stage: &impl Stage) {
    stage.play(
        || {
            let (sender, receiver) = mpsc::channel::<std::thread::Thread>();
            let go = Arc::new(AtomicBool::new(false));
            ((sender, go.clone()), (receiver, go))
        },
        |(sender, go)| {
            sender.send(std::thread::current()).unwrap();
            while !go.load(Ordering::Acquire) {
                std::thread::park();
            }
        },
        |(receiver, go)| {
            let thread = receiver.recv().unwrap();
            go.store(true, Ordering::Release);
            thread.unpark();
        },
    );
}
