//! Names, locks of files and other calls that are made on helpers: what they say is the same on every kind of thread,
//! and they keep nobody else waiting.

#[path = "common/watchdog.rs"]
mod watchdog;

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use uthread::Runtime;
use uthread::net::{TcpListener, TcpStream};
use watchdog::watched;

unsafe extern "C" {
    fn gethostbyname(name: *const c_char) -> *mut libc::hostent;
    fn gethostbyname_r(
        name: *const c_char,
        host: *mut libc::hostent,
        buffer: *mut c_char,
        length: usize,
        result: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE;
}

/// What a call says on an OS thread it says on green ones, where it is made on a helper.
fn the_same_everywhere<R: PartialEq + std::fmt::Debug + Send>(call: impl Fn() -> R + Sync) -> R {
    let expected = std::thread::scope(|s| s.spawn(&call).join().unwrap());
    for workers in [1, 2] {
        let runtime = Runtime::builder().workers(workers).build().unwrap();
        let found = watched(&runtime, || runtime.run(&call));
        assert_eq!(found, expected);
        let calls = runtime.stats().blocking_calls;
        assert!(!uthread::interposed() || calls > 0, "{calls}");
    }
    expected
}

/// Addresses of a name, or the number of the reason why it has none.
fn look_up(name: &CStr, flags: c_int) -> Result<Vec<SocketAddr>, c_int> {
    // SAFETY: the hints are zeroes but for what is set; the list is valid until it is freed.
    unsafe {
        let mut hints: libc::addrinfo = std::mem::zeroed();
        hints.ai_socktype = libc::SOCK_STREAM;
        hints.ai_flags = flags;
        let mut list = std::ptr::null_mut();
        let error = libc::getaddrinfo(name.as_ptr(), c"80".as_ptr(), &hints, &mut list);
        if error != 0 {
            return Err(error);
        }
        let (mut found, mut at) = (Vec::new(), list);
        while let Some(entry) = at.as_ref() {
            if entry.ai_family == libc::AF_INET {
                let address = &*entry.ai_addr.cast::<libc::sockaddr_in>();
                let ip = u32::from_be(address.sin_addr.s_addr);
                found.push((std::net::Ipv4Addr::from(ip), u16::from_be(address.sin_port)).into());
            }
            at = entry.ai_next;
        }
        libc::freeaddrinfo(list);
        Ok(found)
    }
}

#[test]
fn a_name_from_a_file_has_the_same_address() {
    let found = the_same_everywhere(|| look_up(c"localhost", 0)).unwrap();
    assert!(found.contains(&([127, 0, 0, 1], 80).into()), "{found:?}");
}

#[test]
fn what_is_no_name_fails_for_the_same_reason() {
    let failed = the_same_everywhere(|| look_up(c"not an address", libc::AI_NUMERICHOST));
    assert_eq!(failed, Err(libc::EAI_NONAME));
    the_same_everywhere(|| look_up(c"..", 0).unwrap_err());
}

#[test]
fn std_looks_up_names_too() {
    let found = the_same_everywhere(|| {
        ("localhost", 443).to_socket_addrs().map(Vec::from_iter).map_err(|e| e.kind())
    });
    assert!(found.unwrap().contains(&([127, 0, 0, 1], 443).into()));
}

#[test]
fn a_connection_is_made_by_name() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            uthread::scope(|s| {
                s.spawn(|| listener.accept().unwrap().0.write_all(b"x").unwrap());
                let mut stream = TcpStream::connect(("localhost", port)).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert_eq!(text, "x");
            });
        });
    });
}

#[test]
fn an_address_has_the_same_name() {
    the_same_everywhere(|| {
        let mut name = [0; 100];
        // SAFETY: zeroes but for what is set; the lengths are those of what is pointed to.
        let error = unsafe {
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
            libc::getnameinfo(
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
                name.as_mut_ptr().cast(),
                name.len() as libc::socklen_t,
                std::ptr::null_mut(),
                0,
                0,
            )
        };
        (error, name)
    });
}

#[test]
fn the_older_functions_find_the_same_host() {
    let length = |host: *const libc::hostent| {
        // SAFETY: it is null or a host.
        unsafe { host.as_ref() }.map(|host| (host.h_addrtype, host.h_length))
    };
    let found = the_same_everywhere(|| {
        // SAFETY: the name is a C string; the result is read before anybody else asks here.
        length(unsafe { gethostbyname(c"localhost".as_ptr()) })
    });
    assert_eq!(found, Some((libc::AF_INET, 4)));
    the_same_everywhere(|| {
        let mut buffer = [0; 1000];
        let (mut result, mut error) = (std::ptr::null_mut(), 0);
        // SAFETY: the length is the buffer's, and the other pointers are valid.
        let (code, found) = unsafe {
            let mut host = std::mem::zeroed();
            let code = gethostbyname_r(
                c"localhost".as_ptr(),
                &mut host,
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut result,
                &mut error,
            );
            (code, length(result))
        };
        assert_eq!((code, found), (0, Some((libc::AF_INET, 4))));
    });
}

// Locks of files

fn fresh_path() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("uthread-helped-{}-{number}", std::process::id()))
}

/// Two open files of one inode.
fn twice() -> (File, File) {
    let path = fresh_path();
    let files = (File::create(&path).unwrap(), File::create(&path).unwrap());
    std::fs::remove_file(path).unwrap();
    files
}

/// On one worker, `lock` waits until its neighbour has called `unlock`, and then has the lock.
fn a_neighbour_lets_go(lock: impl Fn() -> c_int + Sync, unlock: impl Fn() -> c_int + Sync) {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (tries, unlocked) = (AtomicBool::new(false), AtomicBool::new(false));
            uthread::scope(|s| {
                s.spawn(|| {
                    tries.store(true, Ordering::Relaxed);
                    assert_eq!(lock(), 0);
                    assert!(unlocked.load(Ordering::Relaxed));
                });
                while !tries.load(Ordering::Relaxed) {
                    uthread::yield_now();
                }
                unlocked.store(true, Ordering::Relaxed);
                assert_eq!(unlock(), 0);
            });
        });
    });
}

#[test]
fn a_lock_of_a_file_is_waited_for() {
    let (held, wanted) = twice();
    // SAFETY: flock takes no pointers.
    let flock = |file: &File, operation| unsafe { libc::flock(file.as_raw_fd(), operation) };
    assert_eq!(flock(&held, libc::LOCK_EX), 0);
    a_neighbour_lets_go(|| flock(&wanted, libc::LOCK_SH), || flock(&held, libc::LOCK_UN));
    the_errors_are_the_same(|| flock(&held, libc::LOCK_EX | libc::LOCK_NB), libc::EWOULDBLOCK);
    assert_eq!(flock(&wanted, libc::LOCK_UN), 0);
    the_errors_are_the_same(|| flock(&held, 0), libc::EINVAL);
}

#[test]
fn a_lock_of_a_part_of_a_file_is_waited_for() {
    let (held, wanted) = twice();
    let set = |file: &File, command: c_int, kind: c_int| {
        // SAFETY: plain numbers, for which zero is a value; the pointer is valid.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (kind as libc::c_short, 10);
            libc::fcntl(file.as_raw_fd(), command, &lock)
        }
    };
    assert_eq!(set(&held, libc::F_OFD_SETLKW, libc::F_WRLCK), 0);
    a_neighbour_lets_go(
        || set(&wanted, libc::F_OFD_SETLKW, libc::F_WRLCK),
        || set(&held, libc::F_OFD_SETLK, libc::F_UNLCK),
    );
    let again = || set(&held, libc::F_OFD_SETLK, libc::F_WRLCK);
    the_errors_are_the_same(again, libc::EAGAIN);
    // Locks of the process itself do not keep it out.
    assert_eq!(set(&wanted, libc::F_OFD_SETLK, libc::F_UNLCK), 0);
    assert_eq!(set(&held, libc::F_SETLKW, libc::F_WRLCK), 0);
    // SAFETY: lockf takes no pointers.
    the_errors_are_the_same(|| unsafe { libc::lockf(-1, libc::F_LOCK, 10) }, libc::EBADF);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::lockf(wanted.as_raw_fd(), libc::F_LOCK, 10) }, 0);
}

#[test]
fn the_other_commands_of_fcntl_are_as_they_were() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let (file, _) = twice();
            let fd = file.as_raw_fd();
            // SAFETY: these commands take no pointers.
            unsafe {
                assert_eq!(libc::fcntl(fd, libc::F_SETFD, 0), 0);
                assert_eq!(libc::fcntl(fd, libc::F_GETFD), 0);
                assert_eq!(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC), 0);
                assert_eq!(libc::fcntl(fd, libc::F_GETFD), libc::FD_CLOEXEC);
                let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100);
                assert!(copy >= 100);
                assert_eq!(libc::close(copy), 0);
            }
        });
    });
}

/// On OS threads and green ones.
fn the_errors_are_the_same(call: impl Fn() -> c_int + Sync, error: c_int) {
    let check = || {
        assert_eq!(call(), -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(error));
    };
    check();
    let runtime = Runtime::builder().workers(1).build().unwrap();
    watched(&runtime, || runtime.run(check));
}

// Commands

#[test]
fn a_command_says_how_it_ended() {
    let status = the_same_everywhere(|| {
        // SAFETY: a C string.
        unsafe { libc::system(c"exit 7".as_ptr()) }
    });
    assert_eq!(libc::WEXITSTATUS(status), 7);
}

#[test]
fn a_command_that_is_read_from_is_waited_for() {
    let (text, status) = the_same_everywhere(|| {
        let mut line = [0_u8; 20];
        // SAFETY: C strings, a buffer of that length, and a stream that is open until it is closed.
        unsafe {
            let stream = popen(c"echo text; exit 3".as_ptr(), c"r".as_ptr());
            assert!(!stream.is_null());
            assert!(!libc::fgets(line.as_mut_ptr().cast(), 20, stream).is_null());
            let status = libc::pclose(stream);
            let line = CStr::from_bytes_until_nul(&line).unwrap();
            (CString::from(line), status)
        }
    });
    assert_eq!((text.as_c_str(), libc::WEXITSTATUS(status)), (c"text\n", 3));
}

#[test]
fn what_is_no_terminal_is_not_drained() {
    let (file, _) = twice();
    // SAFETY: tcdrain takes no pointers.
    the_errors_are_the_same(|| unsafe { libc::tcdrain(file.as_raw_fd()) }, libc::ENOTTY);
}
