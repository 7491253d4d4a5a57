//! Waiting for several descriptors.

use std::io::{PipeReader, PipeWriter, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::time::Duration;

use libc::{
    EBADF, EINVAL, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP, fd_set, pollfd,
    timespec, timeval,
};

use crate::stage::{Outcome, on_both, own, taking, waiting};

const TIME: Duration = Duration::from_millis(30);

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

/// The outcome, and what was found of each.
fn poll(asked: &[(RawFd, i16)], time: i32) -> (Outcome, Vec<i16>) {
    let mut fds: Vec<_> =
        asked.iter().map(|&(fd, events)| pollfd { fd, events, revents: 0x55 }).collect();
    let outcome = c!(poll(fds.as_mut_ptr(), fds.len() as u64, time));
    (outcome, fds.iter().map(|fd| fd.revents).collect())
}

/// Who lets signals through must expect to be told of some that are none of its own, if its call is made on a worker.
fn until_served(call: impl Fn() -> Outcome) -> Outcome {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            outcome => return outcome,
        }
    }
}

fn nanoseconds(time: Duration) -> timespec {
    timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

fn ppoll(asked: &[(RawFd, i16)], time: Option<Duration>, mask: bool) -> (Outcome, Vec<i16>) {
    let mut fds: Vec<_> =
        asked.iter().map(|&(fd, events)| pollfd { fd, events, revents: 0x55 }).collect();
    let time = time.map(nanoseconds);
    let time = time.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: integers.
    let none: libc::sigset_t = unsafe { zeroed() };
    let mask = if mask { &raw const none } else { null() };
    let fds_pointer = fds.as_mut_ptr();
    let call = || c!(ppoll(fds_pointer, asked.len() as u64, time, mask));
    let outcome = if mask.is_null() { call() } else { until_served(call) };
    (outcome, fds.iter().map(|fd| fd.revents).collect())
}

/// Sets of descriptors for reading, writing and exceptions; the outcome, who was found, and the rest of the time.
fn select(
    asked: [&[RawFd]; 3],
    count: i32,
    time: Option<Duration>,
) -> (Outcome, [Vec<RawFd>; 3], Option<Duration>) {
    // SAFETY: integers.
    let mut sets: [fd_set; 3] = unsafe { zeroed() };
    for (set, fds) in sets.iter_mut().zip(asked) {
        for fd in fds {
            // SAFETY: the numbers are small.
            unsafe { libc::FD_SET(*fd, set) };
        }
    }
    let mut rest =
        time.map(|t| timeval { tv_sec: t.as_secs() as i64, tv_usec: t.subsec_micros().into() });
    let pointer = rest.as_mut().map_or(null_mut(), std::ptr::from_mut);
    let [read, write, except] = &mut sets;
    let outcome = c!(select(count, read, write, except, pointer));
    let found = [0, 1, 2].map(|i| {
        // SAFETY: as above.
        let has = |fd: &&RawFd| unsafe { libc::FD_ISSET(**fd, &sets[i]) };
        asked[i].iter().filter(has).copied().collect()
    });
    let rest = rest
        .map(|t| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64));
    (outcome, found, rest)
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

#[test]
fn events_of_each_kind_are_found() {
    on_both(|| {
        let (r, w) = pipe();
        let (a, mut b) = tcp();
        let (idle, _idle) = pipe();
        let (ended, end) = pipe();
        drop(end);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        b.write_all(b"x").unwrap();
        c!(send(b.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB)).unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let all = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
        let high = c!(fcntl(idle.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 2000)).map(|fd| own(Ok(fd)));
        let high = high.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let fds = [
            (r.as_raw_fd(), POLLIN),
            (w.as_raw_fd(), all),
            (a.as_raw_fd(), all),
            (a.as_raw_fd(), 0),
            (a.as_raw_fd(), POLLRDHUP),
            (idle.as_raw_fd(), POLLIN),
            (ended.as_raw_fd(), 0),
            (ended.as_raw_fd(), POLLIN),
            (-1, POLLIN),
            (-77, all),
            (1_000_000, 0),
            (file.as_raw_fd(), POLLIN),
            (file.as_raw_fd(), 0),
            (high, POLLIN | POLLOUT),
        ];
        let each: Vec<_> = fds
            .iter()
            .map(|fd| (poll(&[*fd], 0), poll(&[*fd], 1), ppoll(&[*fd], Some(Duration::ZERO), true)))
            .collect();
        assert_eq!(each[10].0, (Ok(1), vec![POLLNVAL]));
        assert_eq!(each[6].0, (Ok(1), vec![POLLHUP]));
        (
            each,
            poll(&fds, -1),
            ppoll(&fds, None, false),
            poll(&[], 0),
            c!(poll(null_mut(), 3, 0)),
            c!(poll(null_mut(), u64::MAX, 0)),
        )
    });
}

#[test]
fn a_time_out_is_never_early() {
    taking(TIME, || poll(&[], 30));
    taking(TIME, || {
        let (r, _w) = pipe();
        poll(&[(r.as_raw_fd(), POLLIN)], 30)
    });
    taking(TIME, || {
        let ((r, _w), (s, _x)) = (pipe(), pipe());
        // Twice the same, of which one asks for what never comes.
        let fds = [
            (r.as_raw_fd(), POLLIN),
            (s.as_raw_fd(), POLLIN),
            (r.as_raw_fd(), POLLPRI),
            (-1, POLLIN),
        ];
        (poll(&fds, 30), ppoll(&fds, Some(TIME), false), ppoll(&fds, Some(TIME), true))
    });
    taking(TIME, || {
        let (r, _w) = pipe();
        let fd = r.as_raw_fd();
        let result = select([&[fd], &[], &[fd]], fd + 1, Some(TIME));
        assert_eq!(result.2, Some(Duration::ZERO));
        (result.0, result.1.map(|found| found.len()))
    });
    taking(TIME, || {
        let epoll = own(c!(epoll_create1(0)));
        // SAFETY: integers.
        let mut events: [libc::epoll_event; 2] = unsafe { zeroed() };
        let time = nanoseconds(TIME);
        (
            c!(epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 2, 30)),
            c!(epoll_pwait(epoll.as_raw_fd(), events.as_mut_ptr(), 2, 30, null())),
            c!(epoll_pwait2(epoll.as_raw_fd(), events.as_mut_ptr(), 2, &time, null())),
        )
    });
    taking(TIME, || {
        let time = nanoseconds(TIME);
        c!(pselect(0, null_mut(), null_mut(), null_mut(), &time, null()))
    });
}

#[test]
fn who_polls_waits_for_any_of_them() {
    type Poll = fn(&[(RawFd, i16)]) -> (Outcome, Vec<i16>);
    let polls: [Poll; 4] = [
        |fds| poll(fds, -1),
        |fds| poll(fds, 10_000),
        |fds| ppoll(fds, None, false),
        |fds| ppoll(fds, None, true),
    ];
    for (i, poll) in polls.into_iter().enumerate() {
        waiting(pipe, |r| poll(&[(r.as_raw_fd(), POLLIN)]), drop);
        let pipes = || {
            let (readers, writers): (Vec<_>, Vec<_>) = (0..50).map(|_| pipe()).unzip();
            (readers, writers)
        };
        let found = waiting(
            pipes,
            |readers| {
                let mut fds: Vec<_> = readers.iter().map(|r| (r.as_raw_fd(), POLLIN)).collect();
                fds.push((-1, POLLIN));
                // Of a socket that is ready to be written, something else is wanted, twice.
                let (a, _b) = tcp();
                fds.extend([(a.as_raw_fd(), POLLIN), (a.as_raw_fd(), POLLPRI)]);
                fds.push(fds[17]);
                poll(&fds)
            },
            |mut writers| {
                writers[17].write_all(b"x").unwrap();
                // Those that are closed are ready, too.
                std::mem::forget(writers);
            },
        );
        assert_eq!((i, found.0.0), (i, Ok(2)));
    }
}

#[test]
fn select_tells_who_is_ready_and_how_much_time_is_left() {
    for time in [None, Some(Duration::from_secs(5))] {
        let (found, _) = waiting(
            || {
                let ((r, w), (s, x)) = (pipe(), pipe());
                ((r, s), (w, x))
            },
            |(r, s)| {
                let (r, s) = (r.as_raw_fd(), s.as_raw_fd());
                let (outcome, found, rest) = select([&[r, s], &[], &[r]], r.max(s) + 1, time);
                let less = rest.map(|rest| rest < Duration::from_secs(5) && !rest.is_zero());
                (outcome, found.map(|found| found == [s]), less)
            },
            |(w, mut x)| {
                x.write_all(b"x").unwrap();
                std::mem::forget((w, x));
            },
        );
        assert_eq!(found, (Ok(1), [true, false, false], time.map(|_| true)));
    }
    on_both(|| {
        let (r, w) = pipe();
        let (r, w) = (r.as_raw_fd(), w.as_raw_fd());
        let both = select([&[r], &[w], &[]], r.max(w) + 1, None);
        let closed = select([&[900], &[], &[]], 901, Some(TIME)).0;
        let too_few = select([&[r], &[w], &[]], 0, Some(Duration::ZERO));
        let negative = c!(select(-1, null_mut(), null_mut(), null_mut(), null_mut()));
        let mut time = timeval { tv_sec: -1, tv_usec: 0 };
        let invalid = c!(select(0, null_mut(), null_mut(), null_mut(), &mut time));
        assert_eq!(
            (both.0, closed, negative, invalid),
            (Ok(1), Err(EBADF), Err(EINVAL), Err(EINVAL))
        );
        (too_few.0, too_few.1.map(|found| found.len()))
    });
}

#[test]
fn select_touches_no_more_of_the_sets_than_the_kernel_does() {
    on_both(|| {
        let (r, mut w) = pipe();
        w.write_all(b"x").unwrap();
        // As large as the type, whatever the number says, which is often that of the descriptors that there may be.
        let mut memory = [[0xff_u8; 128]; 3];
        memory[1] = [0; 128];
        let set: *mut fd_set = memory[1].as_mut_ptr().cast();
        // SAFETY: the number is small.
        unsafe { libc::FD_SET(r.as_raw_fd(), set) };
        let outcome = c!(select(2048, set, null_mut(), null_mut(), null_mut()));
        (outcome, memory[0] == [0xff; 128], memory[2] == [0xff; 128])
    });
}

#[test]
fn epoll_tells_of_each_descriptor_and_of_instances_in_instances() {
    fn watch(epoll: RawFd, fd: RawFd, events: i32, key: u64) -> Outcome {
        let mut event = libc::epoll_event { events: events as u32, u64: key };
        c!(epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event))
    }
    fn wait(epoll: RawFd, most: i32, time: i32, mask: bool) -> (Outcome, Vec<(u32, u64)>) {
        // SAFETY: integers.
        let mut events: [libc::epoll_event; 8] = unsafe { zeroed() };
        // SAFETY: integers.
        let none: libc::sigset_t = unsafe { zeroed() };
        let outcome = match mask {
            true => {
                let events = events.as_mut_ptr();
                until_served(|| c!(epoll_pwait(epoll, events, most, time, &none)))
            }
            false => c!(epoll_wait(epoll, events.as_mut_ptr(), most, time)),
        };
        (
            outcome,
            events[..outcome.unwrap_or(0) as usize].iter().map(|e| (e.events, e.u64)).collect(),
        )
    }
    for (mask, events) in [
        (false, libc::EPOLLIN),
        (true, libc::EPOLLIN),
        (false, libc::EPOLLIN | libc::EPOLLET),
        (false, libc::EPOLLIN | libc::EPOLLONESHOT),
    ] {
        let found = waiting(
            || {
                let (epoll, outer) = (own(c!(epoll_create1(0))), own(c!(epoll_create1(0))));
                let (r, w) = pipe();
                watch(epoll.as_raw_fd(), r.as_raw_fd(), events, 7).unwrap();
                watch(outer.as_raw_fd(), epoll.as_raw_fd(), libc::EPOLLIN, 9).unwrap();
                ((epoll, outer, r), w)
            },
            |(epoll, outer, _r): (OwnedFd, OwnedFd, PipeReader)| {
                let found = wait(outer.as_raw_fd(), 8, -1, mask);
                let inner = wait(epoll.as_raw_fd(), 8, 10_000, mask);
                (found, inner, wait(epoll.as_raw_fd(), 8, 0, mask))
            },
            |mut w| {
                w.write_all(b"x").unwrap();
                std::mem::forget(w);
            },
        );
        assert_eq!(found.0.1, (Ok(1), vec![(libc::EPOLLIN as u32, 7)]));
    }
    on_both(|| {
        let epoll = own(c!(epoll_create1(0)));
        let (r, mut w) = pipe();
        w.write_all(b"x").unwrap();
        let fd = epoll.as_raw_fd();
        watch(fd, r.as_raw_fd(), libc::EPOLLIN, 1).unwrap();
        watch(fd, w.as_raw_fd(), libc::EPOLLOUT, 2).unwrap();
        let wrong = [
            wait(fd, 0, -1, false).0,
            wait(fd, -1, -1, false).0,
            wait(-1, 1, -1, false).0,
            wait(r.as_raw_fd(), 1, -1, false).0,
        ];
        assert_eq!(wrong, [Err(EINVAL), Err(EINVAL), Err(EBADF), Err(EINVAL)]);
        (wait(fd, 1, -1, false).0, wait(fd, 8, -1, false), wait(fd, 8, -5, true))
    });
    // What is added meanwhile is seen.
    waiting(
        || {
            let epoll = own(c!(epoll_create1(0)));
            (epoll.try_clone().unwrap(), epoll)
        },
        |epoll| wait(epoll.as_raw_fd(), 8, -1, false),
        |epoll| {
            let (r, mut w) = pipe();
            w.write_all(b"x").unwrap();
            watch(epoll.as_raw_fd(), r.as_raw_fd(), libc::EPOLLIN, 1).unwrap();
            std::mem::forget((r, w));
        },
    );
}
