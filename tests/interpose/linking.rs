//! Who is bound to the functions that the crate defines.

use std::ffi::{CStr, CString, c_int};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::stage::{Folder, on_both, waiting};
use crate::subprocess::in_child;

const NAMES: [&CStr; 12] = [
    c"read",
    c"write",
    c"poll",
    c"recv",
    c"open64",
    c"accept4",
    c"nanosleep",
    c"waitpid",
    c"select",
    c"epoll_wait",
    c"syscall",
    c"__read_chk",
];

#[test]
fn the_program_exports_the_functions() {
    assert_eq!(uthread::interposed(), cfg!(feature = "interpose"));
    for name in NAMES {
        // SAFETY: the name is a C string; the structure is filled in.
        let file = unsafe {
            let address = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
            let mut found: libc::Dl_info = std::mem::zeroed();
            assert!(libc::dladdr(address, &mut found) != 0, "{name:?}");
            CStr::from_ptr(found.dli_fname).to_string_lossy().into_owned()
        };
        assert_eq!(!file.contains("libc"), cfg!(feature = "interpose"), "{name:?} is in {file}");
    }
}

type Function = extern "C" fn(RawFd, *mut u8) -> c_int;

#[test]
fn calls_of_a_library_that_is_loaded_park_their_thread() {
    let folder = Folder::new();
    let (source, library) = (folder.0.join("calls.c"), folder.path("calls.so"));
    let text = "#include <poll.h>\n#include <sys/socket.h>\n#include <unistd.h>\n\
        int by_read(int fd, char *p) { return read(fd, p, 4); }\n\
        int by_recv(int fd, char *p) { return recv(fd, p, 4, 0); }\n\
        int by_poll(int fd, char *p) { struct pollfd f = { fd, POLLIN, 0 }; return poll(&f, 1, -1); }\n";
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(std::ffi::OsStr::from_bytes(library.as_bytes()))
        .arg(&source)
        .status();
    match compiled {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(e) => return println!("skipped: cc cannot be run: {e}"),
    }
    // SAFETY: the library has no constructors.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    for name in ["by_read", "by_recv", "by_poll"] {
        let name = CString::new(name).unwrap();
        // SAFETY: the library has a function of that name and type, and stays.
        let function: Function = unsafe {
            let address = libc::dlsym(handle, name.as_ptr());
            assert!(!address.is_null());
            std::mem::transmute(address)
        };
        let called = waiting(
            || UnixStream::pair().unwrap(),
            |a| {
                let mut buffer = [0; 4];
                (function(a.as_raw_fd(), buffer.as_mut_ptr()), buffer)
            },
            |mut b| {
                b.write_all(b"abcd").unwrap();
                std::mem::forget(b);
            },
        );
        assert!(called.0.0 > 0, "{name:?}");
    }
}

#[test]
fn a_process_that_has_no_green_threads_is_as_any_other() {
    let test = "linking::a_process_that_has_no_green_threads_is_as_any_other";
    let output = in_child(test, &[], || {
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"text").unwrap();
        assert!(child.wait().unwrap().success());
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        // The harness has one or two.
        assert!(threads <= 2, "{threads} threads");
        let rings = std::fs::read_dir("/proc/self/fd").unwrap().filter(|fd| {
            let target = std::fs::read_link(fd.as_ref().unwrap().path());
            target.is_ok_and(|target| target.to_string_lossy().contains("io_uring"))
        });
        assert_eq!(rings.count(), 0);
    });
    assert!(output.status.success(), "{output:?}");
    on_both(|| ());
}
