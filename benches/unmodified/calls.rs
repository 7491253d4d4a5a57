//! Calls of functions that this crate defines in the C library's stead, where they need not wait.

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use uthread::Runtime;

use crate::common::{Goal, median, pin_to, table};

type Read = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
type Recv = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize;
type Yield = unsafe extern "C" fn() -> c_int;

/// The C library's own function.
///
/// # Safety
///
/// `F` is the type of a pointer to it.
unsafe fn own<F: Copy>(name: &CStr) -> F {
    // SAFETY: the name is a C string; the caller vouches for the type.
    unsafe {
        let library = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY);
        let address = libc::dlsym(library, name.as_ptr());
        assert!(!address.is_null(), "the C library has {name:?}");
        std::mem::transmute_copy(&address)
    }
}

/// What is called, with a function of this crate's or of the C library's.
#[derive(Clone, Copy)]
enum Call {
    /// Fails at once.
    ReadOfNothing(Read),
    /// A file's first bytes.
    ReadOfFile(Read, RawFd),
    /// Nothing is there, in non-blocking mode.
    Recv(Recv, RawFd),
    Yield(Yield),
}

impl Call {
    fn repeat(self, count: usize) -> f64 {
        let mut buffer = [0_u8; 64];
        let at = buffer.as_mut_ptr().cast::<c_void>();
        let begin = Instant::now();
        for _ in 0..count {
            // SAFETY: the buffer is as large as is said.
            unsafe {
                match self {
                    Call::ReadOfNothing(read) => assert_eq!(read(-1, at, 64), -1),
                    Call::ReadOfFile(read, fd) => assert_eq!(read(fd, at, 64), 64),
                    Call::Recv(recv, fd) => assert_eq!(recv(fd, at, 64, libc::MSG_DONTWAIT), -1),
                    Call::Yield(sched_yield) => assert_eq!(sched_yield(), 0),
                }
            }
        }
        begin.elapsed().as_nanos() as f64 / count as f64
    }
}

pub(crate) fn measure(rounds: usize) -> io::Result<Vec<Goal>> {
    const CALLS: usize = 20_000;
    pin_to(1)?;
    let runtime = Runtime::builder().workers(1).build()?;
    let (socket, _other) = UnixStream::pair()?;
    let zeros = File::open("/dev/zero")?;
    let (fd, socket) = (zeros.as_raw_fd(), socket.as_raw_fd());
    // SAFETY: the types are those of the functions.
    let (read, recv, sched_yield) =
        unsafe { (own::<Read>(c"read"), own::<Recv>(c"recv"), own::<Yield>(c"sched_yield")) };
    let cases = [
        ("read, which fails", Call::ReadOfNothing(libc::read), Call::ReadOfNothing(read)),
        ("read of /dev/zero", Call::ReadOfFile(libc::read, fd), Call::ReadOfFile(read, fd)),
        ("recv, MSG_DONTWAIT", Call::Recv(libc::recv, socket), Call::Recv(recv, socket)),
        ("sched_yield", Call::Yield(libc::sched_yield), Call::Yield(sched_yield)),
    ];
    let mut samples = vec![[const { Vec::new() }; 3]; cases.len()];
    for _ in 0..rounds {
        for ((_, ours, own), samples) in cases.iter().zip(&mut samples) {
            let (ours, own) = (*ours, *own);
            samples[0].push(own.repeat(CALLS));
            samples[1].push(ours.repeat(CALLS));
            let green = runtime.spawn(move || ours.repeat(CALLS));
            samples[2].push(green.join().expect("it does not panic"));
        }
    }
    let columns =
        ["call", "the C library's own", "on an OS thread", "difference", "on a green thread"];
    let mut rows = table(&columns);
    let mut goals = Vec::new();
    for ((name, ..), samples) in cases.iter().zip(samples) {
        let [own, ours, green] = samples.map(median);
        rows.add_row([
            (*name).to_owned(),
            format!("{own:.1}"),
            format!("{ours:.1}"),
            format!("{:+.1}", ours - own),
            format!("{green:.1}"),
        ]);
        let more = ours - own;
        goals.push(Goal {
            text: format!("{name}: {more:.1} ns more on an OS thread, at most 5"),
            met: more <= 5.0,
        });
    }
    println!("Calls that do not wait, in nanoseconds.\n");
    println!("{rows}");
    Ok(goals)
}
