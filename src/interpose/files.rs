//! `read`, `write` and their relatives, on files of any kind; `fsync`; `open`.
//!
//! `close` is the C library's. It waits for nothing, but for a socket that lingers (`SO_LINGER`), and for file systems on
//! other machines: such a thread is moved to a helper. An op would not be better: it closes in the
//! worker's name, who would wait in turn.

use std::ffi::{c_char, c_int, c_void};
use std::time::{Duration, Instant};

use libc::{EAGAIN, RWF_NOWAIT, SO_RCVTIMEO, SO_SNDTIMEO, iovec};

use super::Answer;
use super::caller::in_signal_handler;
use super::descriptor::{Patience, checked, length, patience, perform, time_out, wait_for};
use super::futex::SYSCALL;
use crate::reactor::op::{HERE, Request};

/// Where a transfer begins: a position of the file, or [`HERE`].
type Offset = u64;

/// `read`, `readv`, `pread` and `preadv`.
///
/// # Safety
///
/// As preadv2(2), on a green thread that may park.
pub(super) unsafe fn read(fd: c_int, vectors: &[iovec], offset: Offset) -> Answer {
    let bytes = total(vectors);
    if bytes == 0 {
        return Answer::Forward;
    }
    // SAFETY: as the caller says.
    let first = unsafe { at_once(libc::SYS_preadv2, fd, vectors, offset) };
    match first {
        Ok(n) if n == bytes || n == 0 => Answer::Done(n as isize),
        // Of a file, what was in memory; the kernel would have waited for the rest. What others have is all there is.
        Ok(n) if is_on_disk(fd) => {
            let offset = if offset == HERE { HERE } else { offset + n as u64 };
            // SAFETY: as the caller says.
            let rest = unsafe { read_rest(fd, vectors, n, offset) };
            Answer::Done((n + rest.unwrap_or(0)) as isize)
        }
        Ok(n) => Answer::Done(n as isize),
        Err(EAGAIN) => {
            match patience_of_file(fd) {
                Patience::None => return Answer::Failed(EAGAIN),
                Patience::Blocks => return Answer::Forward,
                Patience::Parks => {}
            }
            let request = match vectors {
                [one] => Request::Read {
                    fd,
                    buffer: one.iov_base.cast(),
                    length: length(one.iov_len),
                    offset,
                },
                _ => Request::ReadV {
                    fd,
                    vector: vectors.as_ptr(),
                    count: vectors.len() as u32,
                    offset,
                },
            };
            // SAFETY: as the caller says.
            unsafe { perform(request, time_out(fd, SO_RCVTIMEO), EAGAIN) }.into()
        }
        Err(error) if is_unknown(error) => await_readiness(fd, libc::POLLIN),
        Err(error) => Answer::Failed(error),
    }
}

/// `write`, `writev`, `pwrite` and `pwritev`.
///
/// # Safety
///
/// As pwritev2(2), on a green thread that may park.
pub(super) unsafe fn write(fd: c_int, vectors: &[iovec], offset: Offset) -> Answer {
    let bytes = total(vectors);
    if bytes == 0 {
        return Answer::Forward;
    }
    // SAFETY: as the caller says.
    let first = unsafe { at_once(libc::SYS_pwritev2, fd, vectors, offset) };
    let written = match first {
        Ok(n) if n == bytes => return Answer::Done(n as isize),
        Ok(n) => n,
        Err(EAGAIN) => 0,
        Err(error) if is_unknown(error) => return await_readiness(fd, libc::POLLOUT),
        Err(error) => return Answer::Failed(error),
    };
    match patience_of_file(fd) {
        Patience::Parks => {}
        Patience::None if written == 0 => return Answer::Failed(EAGAIN),
        Patience::None => return Answer::Done(written as isize),
        Patience::Blocks if written == 0 => return Answer::Forward,
        Patience::Blocks => {}
    }
    // SAFETY: as the caller says.
    match unsafe { write_rest(fd, vectors, written, offset) } {
        Ok(more) => Answer::Done((written + more) as isize),
        Err(_) if written > 0 => Answer::Done(written as isize),
        Err(error) => Answer::Failed(error),
    }
}

/// `fsync` and `fdatasync`.
pub(super) fn sync(fd: c_int, data_only: bool) -> Answer {
    if in_signal_handler() {
        return Answer::Forward;
    }
    // SAFETY: the request has no pointers.
    unsafe { perform(Request::Fsync { fd, data_only }, None, EAGAIN) }.into()
}

/// `open`, `openat` and `creat`. What the kernel finds in its cache is opened at once.
///
/// To open a named pipe means to wait for who opens its other end. There is no op for that: io_uring tries in non-blocking
/// mode first, in which such a pipe is opened, or not, without a wait.
///
/// # Safety
///
/// As openat(2), on a green thread that may park.
pub(super) unsafe fn open(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> Answer {
    // SAFETY: as the caller says.
    if unsafe { is_fifo(directory, path, flags) } {
        return if in_signal_handler() { Answer::Forward } else { Answer::Help };
    }
    let makes = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    if flags & makes == 0 {
        let how: [u64; 3] = [flags as u32 as u64, 0, libc::RESOLVE_CACHED];
        let how_size = size_of_val(&how);
        // SAFETY: as the caller says; the structure is `open_how`, and as large as is said.
        let result = unsafe {
            let how = how.as_ptr().addr();
            SYSCALL.get()(libc::SYS_openat2, directory as usize, path.addr(), how, how_size, 0, 0)
        };
        match checked(result as isize) {
            Err(EAGAIN) => {}
            // Flags that open ignores and openat2 does not; kernels before 5.12.
            Err(libc::EINVAL | libc::ENOSYS | libc::EPERM) => return Answer::Forward,
            result => return result.into(),
        }
    }
    if in_signal_handler() {
        return Answer::Forward;
    }
    // SAFETY: as the caller says.
    unsafe { perform(Request::OpenAt { directory, path, flags, mode }, None, EAGAIN) }.into()
}

/// Whether to open it means to wait for somebody else.
///
/// # Safety
///
/// See [`open`].
unsafe fn is_fifo(directory: c_int, path: *const c_char, flags: c_int) -> bool {
    if flags & (libc::O_NONBLOCK | libc::O_PATH | libc::O_DIRECTORY) != 0 {
        return false;
    }
    // SAFETY: a structure of integers.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid; of the path, the caller says it.
    let known = unsafe { libc::fstatat(directory, path, &mut status, 0) } == 0;
    known && status.st_mode & libc::S_IFMT == libc::S_IFIFO
}

/// The mode of a file that is opened with these flags: the argument is there only for some.
pub(super) fn mode_of(flags: c_int, mode: libc::mode_t) -> libc::mode_t {
    let needs = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    if needs { mode } else { 0 }
}

/// One buffer as a list.
pub(super) fn one(buffer: *const c_void, bytes: usize) -> [iovec; 1] {
    [iovec { iov_base: buffer.cast_mut(), iov_len: bytes }]
}

/// The list that a function with `count` buffers was given; none if the count is one that the kernel refuses.
///
/// # Safety
///
/// There are as many, and they stay for as long as the list is used.
pub(super) unsafe fn list<'a>(vectors: *const iovec, count: c_int) -> &'a [iovec] {
    if count <= 0 || count > libc::UIO_MAXIOV || vectors.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(vectors, count as usize) }
}

/// Calls `f` with a position; of negative ones, the C library's function is to tell.
pub(super) fn at(offset: libc::off_t, f: impl FnOnce(Offset) -> Answer) -> Answer {
    u64::try_from(offset).map_or(Answer::Forward, f)
}

fn total(vectors: &[iovec]) -> usize {
    vectors
        .iter()
        .map(|v| v.iov_len)
        .fold(0, usize::saturating_add)
        .min(length(usize::MAX) as usize)
}

/// Transfers what can be without waiting.
///
/// # Safety
///
/// See [`read`].
unsafe fn at_once(
    number: libc::c_long,
    fd: c_int,
    vectors: &[iovec],
    offset: Offset,
) -> Result<usize, c_int> {
    // SAFETY: as the caller says.
    unsafe { call(number, fd, vectors, offset, RWF_NOWAIT) }
}

/// `preadv2` or `pwritev2`.
///
/// # Safety
///
/// See [`read`].
unsafe fn call(
    number: libc::c_long,
    fd: c_int,
    vectors: &[iovec],
    offset: Offset,
    flags: c_int,
) -> Result<usize, c_int> {
    let (vector, count) = (vectors.as_ptr().addr(), vectors.len());
    let (offset, flags) = (offset as usize, flags as usize);
    // The offset comes in two words, of which the second is for machines with short ones.
    // SAFETY: as the caller says.
    checked(unsafe { SYSCALL.get()(number, fd as usize, vector, count, offset, 0, flags) } as isize)
}

/// Whether the kernel does not know how to do that on such a file without waiting, or at all.
fn is_unknown(error: c_int) -> bool {
    matches!(error, libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)
}

/// For files of which the kernel can only tell whether they are ready: waits until they are.
fn await_readiness(fd: c_int, events: i16) -> Answer {
    let mut asked = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: the pointer is to one structure.
    let ready = unsafe { super::symbols::next::poll.get()(&mut asked, 1, 0) };
    if ready == 0 && patience(fd) == Patience::Parks {
        // If it fails there is an error of which the call will tell.
        let _ = wait_for(fd, events as u32, None);
    }
    Answer::Forward
}

/// Files on disks have no non-blocking mode.
fn patience_of_file(fd: c_int) -> Patience {
    match patience(fd) {
        Patience::None if is_on_disk(fd) && !in_signal_handler() => Patience::Parks,
        patience => patience,
    }
}

fn is_on_disk(fd: c_int) -> bool {
    // SAFETY: a structure of integers.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid.
    let known = unsafe { libc::fstat(fd, &mut status) } == 0;
    known && matches!(status.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK)
}

/// Reads the rest of a file's bytes after the first `done`.
///
/// # Safety
///
/// See [`read`].
unsafe fn read_rest(
    fd: c_int,
    vectors: &[iovec],
    done: usize,
    mut offset: Offset,
) -> Result<usize, c_int> {
    let mut total = 0;
    for (buffer, mut bytes) in rest(vectors, done) {
        let mut buffer = buffer;
        while bytes > 0 {
            let request =
                Request::Read { fd, buffer: buffer.cast(), length: length(bytes), offset };
            // SAFETY: as the caller says; the rest of a buffer.
            match unsafe { transfer(request, None) } {
                Ok(0) => return Ok(total),
                Ok(n) => {
                    total += n;
                    bytes -= n;
                    // SAFETY: the kernel has written as many bytes.
                    buffer = unsafe { buffer.byte_add(n) };
                    offset = if offset == HERE { HERE } else { offset + n as u64 };
                }
                Err(_) if total > 0 => return Ok(total),
                error => return error,
            }
        }
    }
    Ok(total)
}

/// Writes all bytes after the first `done`, as a file in blocking mode does.
///
/// # Safety
///
/// See [`read`].
unsafe fn write_rest(
    fd: c_int,
    vectors: &[iovec],
    done: usize,
    offset: Offset,
) -> Result<usize, c_int> {
    let (limit, begin) = (time_out(fd, SO_SNDTIMEO), Instant::now());
    let remaining = || limit.map(|limit| limit.saturating_sub(begin.elapsed()));
    let mut total = 0;
    if done == 0 && vectors.len() > 1 {
        // As one, if it can be: it may be a message, or so short that a pipe takes it as a whole.
        let request =
            Request::WriteV { fd, vector: vectors.as_ptr(), count: vectors.len() as u32, offset };
        // SAFETY: as the caller says.
        total = unsafe { perform(request, limit, EAGAIN)? };
    }
    for (buffer, bytes) in rest(vectors, done + total) {
        let mut written = 0;
        while written < bytes {
            let at = if offset == HERE { HERE } else { offset + (done + total) as u64 };
            // SAFETY: within the buffer.
            let buffer = unsafe { buffer.byte_add(written) };
            let request = Request::Write {
                fd,
                buffer: buffer.cast_const().cast(),
                length: length(bytes - written),
                offset: at,
            };
            // SAFETY: as the caller says.
            match unsafe { transfer(request, remaining()) } {
                Ok(0) => return Ok(total),
                Ok(n) => {
                    written += n;
                    total += n;
                }
                Err(_) if total > 0 => return Ok(total),
                error => return error,
            }
        }
    }
    Ok(total)
}

/// Reads or writes one buffer by an op; in a signal handler, by the system call.
///
/// # Safety
///
/// See [`read`].
unsafe fn transfer(request: Request, limit: Option<Duration>) -> Result<usize, c_int> {
    let (number, fd, buffer, length, offset) = match request {
        _ if !in_signal_handler() => {
            // SAFETY: as the caller says.
            return unsafe { perform(request, limit, EAGAIN) };
        }
        Request::Read { fd, buffer, length, offset } => {
            (libc::SYS_preadv2, fd, buffer.cast_const(), length, offset)
        }
        Request::Write { fd, buffer, length, offset } => {
            (libc::SYS_pwritev2, fd, buffer, length, offset)
        }
        _ => unreachable!("it reads or writes one buffer"),
    };
    // SAFETY: as the caller says.
    unsafe { call(number, fd, &one(buffer.cast(), length as usize), offset, 0) }
}

/// What is left of the buffers when the first `done` bytes are taken off.
fn rest(vectors: &[iovec], mut done: usize) -> impl Iterator<Item = (*mut c_void, usize)> {
    vectors.iter().map(move |vector| {
        let skipped = done.min(vector.iov_len);
        done -= skipped;
        // SAFETY: within the buffer, or at its end.
        (unsafe { vector.iov_base.byte_add(skipped) }, vector.iov_len - skipped)
    })
}
