//! The functions of the C library that this crate defines.
//!
//! The declarations are the C library's (x86-64 and AArch64, 64-bit `off_t`). `syscall` is variadic in C; on both
//! architectures its arguments arrive as those of a function with seven; so do `fcntl`'s as those of one with three.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::ptr::null_mut;

use libc::{
    AT_FDCWD, FILE, O_CREAT, O_TRUNC, O_WRONLY, addrinfo, clockid_t, epoll_event, fd_set, hostent,
    id_t, idtype_t, iovec, mmsghdr, mode_t, msghdr, nfds_t, off_t, pid_t, pollfd,
    pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, pthread_t, rusage, sem_t,
    siginfo_t, sigset_t, sockaddr, socklen_t, ssize_t, timespec, timeval, useconds_t,
};
use nix::errno::Errno;

use super::answer::Answer;
use super::helped::{self, try_lock, try_lock_until};
use super::next::Next;
use super::sleep::Until;
use super::{caller, children, condition, files, futex, mutex, poll, semaphore, sleep, sockets};
use crate::interposed::PROBE;
use crate::reactor::op::HERE;
use crate::worker::blocking;

/// Defines functions. Each has the C library's name and signature; on a green thread the expression on the right
/// answers, elsewhere, or if it says so, the C library.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $answer:expr;)+) => {
        /// The C library's functions.
        #[allow(non_upper_case_globals)]
        pub(super) mod next {
            use super::*;
            $(
                // SAFETY: the type is that of the function as the C library declares it.
                pub(in crate::interpose) static $name: Next<unsafe extern "C" fn($($type),*) -> $result> = unsafe {
                    Next::new(
                        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => unreachable!(),
                        }
                    )
                };
            )+
        }

        $(
            #[doc = concat!("See ", stringify!($name), "(2) or (3).")]
            ///
            /// # Safety
            ///
            /// As the C library's.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                if let Some(thread) = caller::green() {
                    // Of calls on the way to a success the caller does not see the errors.
                    let before = Errno::last_raw();
                    // SAFETY: what the caller owes the C library's function is what the replacement needs.
                    #[allow(unused_unsafe)]
                    let answer = unsafe { $answer };
                    if !matches!(answer, Answer::Forward | Answer::Quick(_)) {
                        caller::count(thread);
                    }
                    Errno::set_raw(before);
                    match answer {
                        Answer::Done(value) | Answer::Quick(value) => return value as $result,
                        Answer::Failed(error) => {
                            Errno::set_raw(error);
                            return -1 as _;
                        }
                        // SAFETY: as the caller says.
                        Answer::Help => return blocking(|| unsafe { next::$name.get()($($argument),*) }),
                        Answer::Forward => {}
                    }
                }
                // SAFETY: as the caller says.
                unsafe { next::$name.get()($($argument),*) }
            }
        )+

        /// Looks all of them up, when the program is loaded.
        extern "C" fn look_up() {
            $(next::$name.look_up();)+
            NEXT_SIGNAL.look_up();
            NEXT_BROADCAST.look_up();
            condition::look_up();
            futex::look_up();
        }
    };
}

functions! {
    // Time.
    fn nanosleep(request: *const timespec, rest: *mut timespec) -> c_int = sleep::nanosleep(request, rest);
    fn clock_nanosleep(clock: clockid_t, flags: c_int, request: *const timespec, rest: *mut timespec) -> c_int
        = sleep::clock_nanosleep(clock, flags, request, rest);
    fn usleep(microseconds: useconds_t) -> c_int = sleep::usleep(microseconds);
    fn sleep(seconds: c_uint) -> c_uint = sleep::sleep(seconds);
    fn sched_yield() -> c_int = sleep::sched_yield();

    // Sockets.
    fn recv(fd: c_int, buffer: *mut c_void, bytes: usize, flags: c_int) -> ssize_t
        = sockets::recv(fd, buffer, bytes, flags);
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, bytes: usize, flags: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t = sockets::recvfrom(fd, buffer, bytes, flags, address, length);
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t = sockets::recvmsg(fd, message, flags);
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec) -> c_int
        = sockets::recvmmsg(fd, messages, count, flags, limit);
    fn send(fd: c_int, buffer: *const c_void, bytes: usize, flags: c_int) -> ssize_t
        = sockets::send(fd, buffer, bytes, flags);
    fn sendto(
        fd: c_int, buffer: *const c_void, bytes: usize, flags: c_int, address: *const sockaddr, length: socklen_t
    ) -> ssize_t = sockets::sendto(fd, buffer, bytes, flags, address, length);
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t = sockets::sendmsg(fd, message, flags);
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int
        = sockets::sendmmsg(fd, messages, count, flags);
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int
        = sockets::accept4(fd, address, length, 0);
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int
        = sockets::accept4(fd, address, length, flags);
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = sockets::connect(fd, address, length);

    // Files.
    fn read(fd: c_int, buffer: *mut c_void, bytes: usize) -> ssize_t
        = files::read(fd, &files::one(buffer, bytes), HERE);
    fn readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t
        = files::read(fd, files::list(vectors, count), HERE);
    fn pread(fd: c_int, buffer: *mut c_void, bytes: usize, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::read(fd, &files::one(buffer, bytes), offset));
    fn pread64(fd: c_int, buffer: *mut c_void, bytes: usize, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::read(fd, &files::one(buffer, bytes), offset));
    fn preadv(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::read(fd, files::list(vectors, count), offset));
    fn preadv64(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::read(fd, files::list(vectors, count), offset));
    fn write(fd: c_int, buffer: *const c_void, bytes: usize) -> ssize_t
        = files::write(fd, &files::one(buffer, bytes), HERE);
    fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t
        = files::write(fd, files::list(vectors, count), HERE);
    fn pwrite(fd: c_int, buffer: *const c_void, bytes: usize, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::write(fd, &files::one(buffer, bytes), offset));
    fn pwrite64(fd: c_int, buffer: *const c_void, bytes: usize, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::write(fd, &files::one(buffer, bytes), offset));
    fn pwritev(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::write(fd, files::list(vectors, count), offset));
    fn pwritev64(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t
        = files::at(offset, |offset| files::write(fd, files::list(vectors, count), offset));
    fn fsync(fd: c_int) -> c_int = files::sync(fd, false);
    fn fdatasync(fd: c_int) -> c_int = files::sync(fd, true);
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = files::open(AT_FDCWD, path, flags, files::mode_of(flags, mode));
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = files::open(AT_FDCWD, path, flags, files::mode_of(flags, mode));
    fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = files::open(directory, path, flags, files::mode_of(flags, mode));
    fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = files::open(directory, path, flags, files::mode_of(flags, mode));
    fn creat(path: *const c_char, mode: mode_t) -> c_int
        = files::open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    fn creat64(path: *const c_char, mode: mode_t) -> c_int
        = files::open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);

    // Readiness.
    fn poll(fds: *mut pollfd, count: nfds_t, time: c_int) -> c_int = poll::poll(fds, count, time);
    fn ppoll(fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t) -> c_int
        = poll::ppoll(fds, count, time, mask);
    fn select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *mut timeval) -> c_int
        = poll::select(count, read, write, except, time);
    fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *const timespec,
        mask: *const sigset_t
    ) -> c_int = poll::pselect(count, read, write, except, time, mask);
    fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, time: c_int) -> c_int
        = poll::epoll_wait(epoll, events, most, time);
    fn epoll_pwait(epoll: c_int, events: *mut epoll_event, most: c_int, time: c_int, mask: *const sigset_t) -> c_int
        = poll::epoll_pwait(epoll, events, most, time, mask);
    fn epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, most: c_int, time: *const timespec, mask: *const sigset_t
    ) -> c_int = poll::epoll_pwait2(epoll, events, most, time, mask);

    // What `_FORTIFY_SOURCE` makes of some of these: the C library ends the program if the buffer is too small.
    fn __read_chk(fd: c_int, buffer: *mut c_void, bytes: usize, room: usize) -> ssize_t
        = within(bytes, room, || files::read(fd, &files::one(buffer, bytes), HERE));
    fn __pread_chk(fd: c_int, buffer: *mut c_void, bytes: usize, offset: off_t, room: usize) -> ssize_t
        = within(bytes, room, || files::at(offset, |offset| files::read(fd, &files::one(buffer, bytes), offset)));
    fn __pread64_chk(fd: c_int, buffer: *mut c_void, bytes: usize, offset: off_t, room: usize) -> ssize_t
        = within(bytes, room, || files::at(offset, |offset| files::read(fd, &files::one(buffer, bytes), offset)));
    fn __recv_chk(fd: c_int, buffer: *mut c_void, bytes: usize, room: usize, flags: c_int) -> ssize_t
        = within(bytes, room, || sockets::recv(fd, buffer, bytes, flags));
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, bytes: usize, room: usize, flags: c_int, address: *mut sockaddr,
        length: *mut socklen_t
    ) -> ssize_t = within(bytes, room, || sockets::recvfrom(fd, buffer, bytes, flags, address, length));
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, time: c_int, room: usize) -> c_int
        = within(count as usize * size_of::<pollfd>(), room, || poll::poll(fds, count, time));
    fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t, room: usize
    ) -> c_int = within(count as usize * size_of::<pollfd>(), room, || poll::ppoll(fds, count, time, mask));

    // Children.
    fn wait(status: *mut c_int) -> pid_t = children::wait4(-1, status, 0, null_mut());
    fn waitpid(child: pid_t, status: *mut c_int, options: c_int) -> pid_t
        = children::wait4(child, status, options, null_mut());
    fn wait4(child: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t
        = children::wait4(child, status, options, usage);
    fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int
        = children::waitid(kind, id, info, options);

    // Locks.
    fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int = mutex::lock(mutex);
    fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, time: *const timespec) -> c_int
        = mutex::timedlock(mutex, time);
    fn pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec) -> c_int
        = mutex::clocklock(mutex, clock, time);
    fn pthread_cond_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int
        = condition::wait(condition, mutex);
    fn pthread_cond_timedwait(
        condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, time: *const timespec
    ) -> c_int = condition::timedwait(condition, mutex, time);
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec
    ) -> c_int = condition::clockwait(condition, mutex, clock, time);
    fn sem_wait(semaphore: *mut sem_t) -> c_int = semaphore::wait(semaphore);
    fn sem_timedwait(semaphore: *mut sem_t, time: *const timespec) -> c_int
        = semaphore::clockwait(semaphore, libc::CLOCK_REALTIME, time);
    fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, time: *const timespec) -> c_int
        = semaphore::clockwait(semaphore, clock, time);
    fn pthread_rwlock_rdlock(lock: *mut pthread_rwlock_t) -> c_int
        = try_lock(|| libc::pthread_rwlock_tryrdlock(lock));
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int
        = try_lock_until(Until::new(libc::CLOCK_REALTIME, time), || libc::pthread_rwlock_tryrdlock(lock));
    fn pthread_rwlock_clockrdlock(lock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec) -> c_int
        = try_lock_until(Until::new(clock, time), || libc::pthread_rwlock_tryrdlock(lock));
    fn pthread_rwlock_wrlock(lock: *mut pthread_rwlock_t) -> c_int
        = try_lock(|| libc::pthread_rwlock_trywrlock(lock));
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int
        = try_lock_until(Until::new(libc::CLOCK_REALTIME, time), || libc::pthread_rwlock_trywrlock(lock));
    fn pthread_rwlock_clockwrlock(lock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec) -> c_int
        = try_lock_until(Until::new(clock, time), || libc::pthread_rwlock_trywrlock(lock));
    fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int = Answer::Help;
    fn pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int
        = try_lock(|| libc::pthread_tryjoin_np(thread, result));
    fn pthread_timedjoin_np(thread: pthread_t, result: *mut *mut c_void, time: *const timespec) -> c_int
        = try_lock(|| libc::pthread_tryjoin_np(thread, result));
    fn pthread_clockjoin_np(
        thread: pthread_t, result: *mut *mut c_void, clock: clockid_t, time: *const timespec
    ) -> c_int = Answer::Help;

    // Names.
    fn getaddrinfo(
        node: *const c_char, service: *const c_char, hints: *const addrinfo, result: *mut *mut addrinfo
    ) -> c_int = Answer::Help;
    fn getnameinfo(
        address: *const sockaddr, length: socklen_t, host: *mut c_char, host_length: socklen_t,
        service: *mut c_char, service_length: socklen_t, flags: c_int
    ) -> c_int = Answer::Help;
    fn gethostbyname(name: *const c_char) -> *mut hostent = Answer::Help;
    fn gethostbyname_r(
        name: *const c_char, host: *mut hostent, buffer: *mut c_char, length: usize,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int = Answer::Help;
    fn gethostbyname2_r(
        name: *const c_char, family: c_int, host: *mut hostent, buffer: *mut c_char, length: usize,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int = Answer::Help;
    fn gethostbyaddr_r(
        address: *const c_void, address_length: socklen_t, family: c_int, host: *mut hostent, buffer: *mut c_char,
        length: usize, result: *mut *mut hostent, error: *mut c_int
    ) -> c_int = Answer::Help;

    // Locks of files, terminals, commands.
    fn flock(fd: c_int, operation: c_int) -> c_int
        = helped::flock(operation, |operation| next::flock.get()(fd, operation));
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
        = helped::fcntl(command, |command| next::fcntl.get()(fd, command, argument));
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int
        = helped::fcntl(command, |command| next::fcntl64.get()(fd, command, argument));
    fn lockf(fd: c_int, command: c_int, length: off_t) -> c_int
        = helped::lockf(command, |command| next::lockf.get()(fd, command, length));
    fn lockf64(fd: c_int, command: c_int, length: off_t) -> c_int
        = helped::lockf(command, |command| next::lockf64.get()(fd, command, length));
    fn tcdrain(fd: c_int) -> c_int = helped::outside_handlers();
    fn system(command: *const c_char) -> c_int = Answer::Help;
    fn pclose(stream: *mut FILE) -> c_int = Answer::Help;
}

fn within(bytes: usize, room: usize, f: impl FnOnce() -> Answer) -> Answer {
    if bytes <= room { f() } else { Answer::Forward }
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

/// See syscall(2).
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let answer = match number {
        // SAFETY: what the caller owes the system call is what the replacement needs.
        libc::SYS_futex => unsafe { futex::futex(a, b as c_int, c as u32, d, e, f as u32) },
        PROBE => Answer::Done(PROBE as isize),
        _ => Answer::Forward,
    };
    match answer {
        Answer::Done(value) | Answer::Quick(value) => value as c_long,
        Answer::Failed(error) => {
            Errno::set_raw(error);
            -1
        }
        // SAFETY: as the caller says.
        Answer::Forward | Answer::Help => unsafe { futex::SYSCALL.get()(number, a, b, c, d, e, f) },
    }
}

type OnCondition = unsafe extern "C" fn(*mut pthread_cond_t) -> c_int;
// SAFETY: the C library declares both like this.
pub(super) static NEXT_SIGNAL: Next<OnCondition> = unsafe { Next::new(c"pthread_cond_signal") };
// SAFETY: as above.
pub(super) static NEXT_BROADCAST: Next<OnCondition> =
    unsafe { Next::new(c"pthread_cond_broadcast") };

/// See pthread_cond_signal(3). Whoever calls, green threads may wait.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int {
    // Green waiters last: the one that is woken may be the one that does away with the variable.
    // SAFETY: as the caller says.
    let result = unsafe { NEXT_SIGNAL.get()(condition) };
    condition::wake(condition.addr(), 1);
    result
}

/// See pthread_cond_broadcast(3).
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: as the caller says.
    let result = unsafe { NEXT_BROADCAST.get()(condition) };
    condition::wake(condition.addr(), u32::MAX);
    result
}
