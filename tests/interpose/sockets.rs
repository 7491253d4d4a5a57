//! Sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use libc::{
    EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINVAL, EMSGSIZE, ENOTCONN, ENOTSOCK,
    EPIPE, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SO_RCVTIMEO, SO_SNDTIMEO,
    iovec, mmsghdr, msghdr, sockaddr, sockaddr_storage, socklen_t,
};

use crate::stage::{
    Folder, Outcome, never_waits, on_both, own, pattern, set_option, taking, waiting,
};

const TIME: Duration = Duration::from_millis(30);

fn timeval(time: Duration) -> libc::timeval {
    libc::timeval { tv_sec: time.as_secs() as i64, tv_usec: time.subsec_micros().into() }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

fn of_kind(kind: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    c!(socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())).unwrap();
    (own(Ok(fds[0].into())), own(Ok(fds[1].into())))
}

/// Receives into a buffer of some size.
fn receive(fd: RawFd, room: usize, flags: i32) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0xee; room];
    (c!(recv(fd, buffer.as_mut_ptr().cast(), room, flags)), buffer)
}

fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
    c!(send(fd, bytes.as_ptr().cast(), bytes.len(), flags))
}

fn vectors(parts: &mut [Vec<u8>]) -> Vec<iovec> {
    let vector = |p: &mut Vec<u8>| iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() };
    parts.iter_mut().map(vector).collect()
}

fn message(vectors: &mut [iovec]) -> msghdr {
    // SAFETY: integers, and pointers that may be null.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

/// A message with room for a descriptor, or with one; the memory lives as long as the second value.
fn with_descriptor(message: &mut msghdr, fd: Option<RawFd>) -> Box<[u64; 8]> {
    let mut memory = Box::new([0_u64; 8]);
    // SAFETY: a calculation.
    let space = unsafe { libc::CMSG_SPACE(4) } as usize;
    message.msg_control = memory.as_mut_ptr().cast();
    message.msg_controllen = space;
    if let Some(fd) = fd {
        // SAFETY: there is room for one.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(message);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(control).cast::<RawFd>().write_unaligned(fd);
        }
    }
    memory
}

/// The descriptor that came with a message.
fn descriptor_of(message: &msghdr) -> Option<OwnedFd> {
    // SAFETY: the message was filled in by the kernel.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(message);
        (!control.is_null())
            .then(|| own(Ok(libc::CMSG_DATA(control).cast::<RawFd>().read_unaligned().into())))
    }
}

#[test]
fn what_has_come_is_received_as_the_flags_say() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        for flags in [0, MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT, MSG_WAITALL, MSG_PEEK | MSG_TRUNC] {
            let results = on_both(|| {
                let (a, b) = of_kind(kind);
                assert_eq!(send(a.as_raw_fd(), b"abcdef", 0), Ok(6));
                let first = receive(b.as_raw_fd(), 3, flags);
                (
                    first,
                    receive(b.as_raw_fd(), 8, MSG_DONTWAIT),
                    receive(b.as_raw_fd(), 0, MSG_DONTWAIT),
                )
            });
            let whole = flags & MSG_TRUNC != 0 && kind != libc::SOCK_STREAM;
            assert_eq!(results.0, (Ok(if whole { 6 } else { 3 }), b"abc".to_vec()), "{flags:x}");
        }
    }
}

#[test]
fn whoever_does_not_wait_is_told_that_there_is_nothing() {
    on_both(|| {
        let (_a, b) = of_kind(libc::SOCK_STREAM);
        let fd = b.as_raw_fd();
        assert_eq!(receive(fd, 3, MSG_DONTWAIT).0, Err(EAGAIN));
        assert_eq!(receive(fd, 3, MSG_DONTWAIT | MSG_WAITALL).0, Err(EAGAIN));
        never_waits(&b);
        for flags in [0, MSG_WAITALL, MSG_PEEK, MSG_WAITALL | MSG_PEEK] {
            assert_eq!(receive(fd, 3, flags).0, Err(EAGAIN));
        }
        let mut byte = 0_u8;
        assert_eq!(c!(read(fd, (&raw mut byte).cast(), 1)), Err(EAGAIN));
        let mut parts = [vec![0; 2], vec![0; 2]];
        let mut list = vectors(&mut parts);
        assert_eq!(c!(readv(fd, list.as_ptr(), 2)), Err(EAGAIN));
        assert_eq!(c!(recvmsg(fd, &mut message(&mut list), 0)), Err(EAGAIN));
    });
}

#[test]
fn the_end_of_a_stream_and_its_reset_are_seen() {
    on_both(|| {
        let (a, b) = tcp();
        drop(a);
        assert_eq!(receive(b.as_raw_fd(), 3, 0).0, Ok(0));
        assert_eq!(receive(b.as_raw_fd(), 3, MSG_WAITALL).0, Ok(0));
        let (a, b) = tcp();
        set_option(&a, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
        drop(a);
        assert_eq!(receive(b.as_raw_fd(), 3, 0).0, Err(ECONNRESET));
        assert_eq!(receive(b.as_raw_fd(), 3, 0).0, Ok(0));
        assert_eq!(send(b.as_raw_fd(), b"x", MSG_NOSIGNAL), Err(EPIPE));
    });
}

#[test]
fn what_is_no_socket_or_not_connected_is_told() {
    on_both(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let unconnected = own(c!(socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
        let mut outcomes = Vec::new();
        for fd in [-1, 1_000_000, reader.as_raw_fd(), writer.as_raw_fd(), unconnected.as_raw_fd()] {
            let mut buffer = [0_u8; 4];
            let memory = buffer.as_mut_ptr().cast();
            let mut list = [iovec { iov_base: memory, iov_len: 4 }];
            let mut one = message(&mut list);
            let mut many = [mmsghdr { msg_hdr: one, msg_len: 0 }];
            outcomes.extend([
                c!(recv(fd, memory, 4, 0)),
                c!(recv(fd, memory, 4, MSG_WAITALL)),
                c!(recvfrom(fd, memory, 4, 0, null_mut(), null_mut())),
                c!(recvmsg(fd, &mut one, 0)),
                c!(recvmmsg(fd, many.as_mut_ptr(), 1, 0, null_mut())),
                c!(recvmmsg(fd, many.as_mut_ptr(), 0, 0, null_mut())),
                c!(send(fd, memory, 4, MSG_NOSIGNAL)),
                c!(sendto(fd, memory, 4, MSG_NOSIGNAL, null(), 0)),
                c!(sendmsg(fd, &one, MSG_NOSIGNAL)),
                c!(sendmmsg(fd, many.as_mut_ptr(), 1, MSG_NOSIGNAL)),
                c!(sendmmsg(fd, many.as_mut_ptr(), 0, MSG_NOSIGNAL)),
                c!(accept(fd, null_mut(), null_mut())),
                c!(accept4(fd, null_mut(), null_mut(), 1)),
            ]);
        }
        assert_eq!((outcomes[0], outcomes[26]), (Err(EBADF), Err(ENOTSOCK)));
        assert_eq!((outcomes[52], outcomes[63]), (Err(ENOTCONN), Err(EINVAL)));
        outcomes
    });
}

#[test]
fn memory_that_is_not_there_is_told() {
    on_both(|| {
        let (a, b) = of_kind(libc::SOCK_STREAM);
        send(a.as_raw_fd(), b"abcdef", 0).unwrap();
        let nowhere = std::ptr::without_provenance_mut(16);
        let mut byte = 0_u8;
        let byte: *mut libc::c_void = (&raw mut byte).cast();
        let (a, b) = (a.as_raw_fd(), b.as_raw_fd());
        let mut address = [0_u8; 16];
        [
            c!(recv(b, nowhere, 1, 0)),
            c!(read(b, nowhere, 1)),
            c!(send(a, nowhere, 1, 0)),
            c!(write(a, nowhere, 1)),
            c!(readv(b, null(), 1)),
            c!(recvfrom(b, byte, 1, 0, address.as_mut_ptr().cast(), null_mut())),
        ]
    });
}

#[test]
fn whoever_receives_waits_for_bytes() {
    type Receiver = fn(RawFd) -> (Outcome, Vec<u8>);
    let receivers: [Receiver; 6] = [
        |fd| receive(fd, 8, 0),
        |fd| receive(fd, 8, MSG_PEEK),
        |fd| receive(fd, 3, MSG_TRUNC),
        |fd| {
            let mut buffer = vec![0; 8];
            let memory = buffer.as_mut_ptr().cast();
            // SAFETY: integers.
            let mut address: sockaddr_storage = unsafe { std::mem::zeroed() };
            let mut length = size_of_val(&address) as socklen_t;
            let pointer: *mut sockaddr_storage = &mut address;
            let outcome = c!(recvfrom(fd, memory, 8, 0, pointer.cast::<sockaddr>(), &mut length));
            buffer.push(length as u8);
            (outcome, buffer)
        },
        |fd| {
            let mut buffer = vec![0; 8];
            (c!(read(fd, buffer.as_mut_ptr().cast(), 8)), buffer)
        },
        |fd| {
            let mut parts = [vec![0; 2], vec![], vec![0; 9]];
            let list = vectors(&mut parts);
            (c!(readv(fd, list.as_ptr(), 3)), parts.concat())
        },
    ];
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        for receiver in receivers {
            waiting(
                || of_kind(kind),
                |a| receiver(a.as_raw_fd()),
                |b| send(b.as_raw_fd(), b"abcde", 0),
            );
        }
    }
    for receiver in receivers {
        waiting(tcp, |a| receiver(a.as_raw_fd()), |b| send(b.as_raw_fd(), b"abcde", 0));
        let ended =
            waiting(tcp, |a| receiver(a.as_raw_fd()).0, |b| b.shutdown(Shutdown::Both).ok());
        assert_eq!(ended.0, Ok(0));
        // The own end.
        let twice = || {
            let (a, b) = tcp();
            (a.try_clone().unwrap(), (a, b))
        };
        let ended = waiting(
            twice,
            |a| receiver(a.as_raw_fd()).0,
            |(a, _b)| a.shutdown(Shutdown::Both).ok(),
        );
        assert_eq!(ended.0, Ok(0));
    }
}

#[test]
fn whoever_wants_all_waits_for_all() {
    for flags in [MSG_WAITALL, MSG_WAITALL | MSG_PEEK] {
        let play = || {
            waiting(
                tcp,
                |a| (receive(a.as_raw_fd(), 6, flags), receive(a.as_raw_fd(), 6, MSG_DONTWAIT)),
                |mut b| {
                    b.write_all(b"abc").unwrap();
                    uthread::sleep(Duration::from_millis(5));
                    b.write_all(b"def").unwrap();
                    std::mem::forget(b);
                },
            )
        };
        assert_eq!(play().0.0, (Ok(6), b"abcdef".to_vec()), "{flags:x}");
    }
    // The end comes before all.
    let ended = waiting(
        tcp,
        |a| receive(a.as_raw_fd(), 6, MSG_WAITALL),
        |mut b| b.write_all(b"abc").unwrap(),
    );
    assert_eq!(ended.0.0, Ok(3));
    let message_of_two = || {
        waiting(
            || of_kind(libc::SOCK_STREAM),
            |a| {
                let mut parts = [vec![0; 2], vec![0; 6]];
                let mut list = vectors(&mut parts);
                let outcome = c!(recvmsg(a.as_raw_fd(), &mut message(&mut list), MSG_WAITALL));
                (outcome, parts)
            },
            |b| {
                send(b.as_raw_fd(), b"abc", 0).unwrap();
                uthread::sleep(Duration::from_millis(5));
                send(b.as_raw_fd(), b"defgh", 0).unwrap();
            },
        )
    };
    assert_eq!(message_of_two().0.0, Ok(8));
}

#[test]
fn descriptors_arrive_with_the_bytes() {
    for flags in [0, libc::MSG_CMSG_CLOEXEC, MSG_WAITALL, MSG_PEEK] {
        let ((outcome, flags_of_fd, text, _), _) = waiting(
            || of_kind(libc::SOCK_STREAM),
            |a| {
                let mut parts = [vec![0; 2], vec![0; 6]];
                let mut list = vectors(&mut parts);
                let mut message = message(&mut list);
                let _memory = with_descriptor(&mut message, None);
                let outcome = c!(recvmsg(a.as_raw_fd(), &mut message, flags));
                let came = descriptor_of(&message).expect("a descriptor");
                let flags = c!(fcntl(came.as_raw_fd(), libc::F_GETFD));
                let mut text = String::new();
                std::fs::File::from(came).read_to_string(&mut text).unwrap();
                (outcome, flags, text, (message.msg_flags, message.msg_controllen, parts))
            },
            |b| {
                let (reader, mut writer) = std::io::pipe().unwrap();
                writer.write_all(b"through the pipe").unwrap();
                let mut parts = [b"ab".to_vec(), b"c".to_vec()];
                let mut list = vectors(&mut parts);
                let mut message = message(&mut list);
                let _memory = with_descriptor(&mut message, Some(reader.as_raw_fd()));
                let sent = c!(sendmsg(b.as_raw_fd(), &message, 0));
                let more = send(b.as_raw_fd(), b"def", 0);
                (sent, more)
            },
        );
        assert!(outcome.is_ok() && text == "through the pipe", "{outcome:?} {text}");
        assert_eq!(flags_of_fd, Ok((flags & libc::MSG_CMSG_CLOEXEC != 0).into()));
    }
}

/// Receives up to three messages of up to four bytes; how many, their lengths, and whether less than the time is left.
fn receive_many(
    fd: RawFd,
    flags: i32,
    time: Option<Duration>,
) -> (Outcome, Vec<(u32, Vec<u8>)>, bool) {
    let mut parts = [vec![0; 4], vec![0; 4], vec![0; 4]];
    let mut lists = parts.each_mut().map(|p| vectors(std::slice::from_mut(p)));
    let mut messages: Vec<_> =
        lists.iter_mut().map(|l| mmsghdr { msg_hdr: message(l), msg_len: 99 }).collect();
    let before = time
        .map(|t| libc::timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    let mut rest = before;
    let time = rest.as_mut().map_or(null_mut(), std::ptr::from_mut);
    let outcome = c!(recvmmsg(fd, messages.as_mut_ptr(), 3, flags, time));
    let less = before.zip(rest).is_some_and(|(before, rest)| {
        (rest.tv_sec, rest.tv_nsec) < (before.tv_sec, before.tv_nsec)
    });
    let lengths: Vec<_> = messages.iter().map(|m| m.msg_len).collect();
    (outcome, lengths.into_iter().zip(parts).collect(), less)
}

#[test]
fn several_messages_are_received_at_once() {
    let second = Some(Duration::from_secs(1));
    for (flags, time) in [
        (0, None),
        (libc::MSG_WAITFORONE, None),
        (MSG_DONTWAIT, None),
        (libc::MSG_WAITFORONE, second),
        (0, Some(Duration::ZERO)),
        (0, Some(Duration::from_nanos(1))),
    ] {
        on_both(|| {
            let (a, b) = of_kind(libc::SOCK_DGRAM);
            for text in [&b"ab"[..], b"cdefg", b"", b"h"] {
                send(a.as_raw_fd(), text, 0).unwrap();
            }
            (receive_many(b.as_raw_fd(), flags, time), receive(b.as_raw_fd(), 4, MSG_DONTWAIT))
        });
        on_both(|| {
            let (a, b) = of_kind(libc::SOCK_DGRAM);
            send(a.as_raw_fd(), b"ab", 0).unwrap();
            drop(a);
            receive_many(b.as_raw_fd(), flags | MSG_DONTWAIT, time)
        });
    }
    on_both(|| {
        let (_a, b) = of_kind(libc::SOCK_DGRAM);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        let mut list = [];
        let mut messages = [mmsghdr { msg_hdr: message(&mut list), msg_len: 0 }];
        assert_eq!(
            c!(recvmmsg(b.as_raw_fd(), messages.as_mut_ptr(), 1, 0, &mut time)),
            Err(EINVAL)
        );
    });
    for flags in [0, libc::MSG_WAITFORONE] {
        let received = waiting(
            || of_kind(libc::SOCK_DGRAM),
            |a| {
                let (outcome, parts, less) = receive_many(a.as_raw_fd(), flags, second);
                // The others come now or later, or nobody waits for them any more.
                if flags == 0 { (outcome, parts, less) } else { (Ok(1), parts[..1].to_vec(), less) }
            },
            |b| [b"a", b"b", b"c"].map(|text| send(b.as_raw_fd(), text, 0))[0],
        );
        assert!(received.0.2, "the rest of the time is told");
    }
}

#[test]
fn times_to_receive_are_kept() {
    type Receiver = fn(RawFd) -> Outcome;
    let receivers: [Receiver; 6] = [
        |fd| receive(fd, 4, 0).0,
        |fd| receive(fd, 4, MSG_WAITALL).0,
        |fd| receive(fd, 4, MSG_PEEK | MSG_WAITALL).0,
        |fd| c!(read(fd, [0_u8; 4].as_mut_ptr().cast(), 4)),
        |fd| c!(recvmsg(fd, &mut message(&mut vectors(&mut [vec![0; 4]])), 0)),
        |fd| receive_many(fd, 0, None).0,
    ];
    for (i, receiver) in receivers.into_iter().enumerate() {
        let outcome = taking(TIME, || {
            let (_a, b) = tcp();
            set_option(&b, SO_RCVTIMEO, timeval(TIME));
            receiver(b.as_raw_fd())
        });
        assert_eq!(outcome, Err(EAGAIN), "{i}");
    }
    let partly = taking(TIME, || {
        let (mut a, b) = tcp();
        a.write_all(b"abc").unwrap();
        set_option(&b, SO_RCVTIMEO, timeval(TIME));
        receive(b.as_raw_fd(), 6, MSG_WAITALL).0
    });
    assert_eq!(partly, Ok(3));
    let accepted = taking(TIME, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_option(&listener, SO_RCVTIMEO, timeval(TIME));
        c!(accept(listener.as_raw_fd(), null_mut(), null_mut()))
    });
    assert_eq!(accepted, Err(EAGAIN));
    taking(TIME, || {
        let (_a, mut b) = tcp();
        b.set_read_timeout(Some(TIME)).unwrap();
        assert_eq!(b.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Fills a socket; how much went in.
fn fill(socket: &impl AsRawFd) -> usize {
    let mut sum = 0;
    while let Ok(n) = send(socket.as_raw_fd(), &[0; 1000], MSG_DONTWAIT) {
        sum += n as usize;
    }
    sum
}

#[test]
fn times_to_send_are_kept() {
    type Sender = fn(RawFd) -> Outcome;
    let senders: [Sender; 5] = [
        |fd| send(fd, &[0; 1000], 0),
        |fd| c!(write(fd, [0_u8; 1000].as_ptr().cast(), 1000)),
        |fd| c!(writev(fd, vectors(&mut [vec![0; 500], vec![0; 500]]).as_ptr(), 2)),
        |fd| c!(sendmsg(fd, &message(&mut vectors(&mut [vec![0; 500], vec![0; 500]])), 0)),
        |fd| {
            let mut parts = [vec![0; 1000]];
            let mut list = vectors(&mut parts);
            let mut messages = [mmsghdr { msg_hdr: message(&mut list), msg_len: 0 }];
            c!(sendmmsg(fd, messages.as_mut_ptr(), 1, 0))
        },
    ];
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        for sender in senders {
            let outcome = taking(TIME, || {
                let (a, _b) = of_kind(kind);
                fill(&a);
                set_option(&a, SO_SNDTIMEO, timeval(TIME));
                sender(a.as_raw_fd())
            });
            assert_eq!(outcome, Err(EAGAIN));
        }
    }
    // What was sent before the time was over counts.
    let outcome = taking(TIME, || {
        let (a, _b) = of_kind(libc::SOCK_STREAM);
        set_option(&a, SO_SNDTIMEO, timeval(TIME));
        let bytes = vec![0; 10_000_000];
        let sent = [
            send(a.as_raw_fd(), &bytes, 0),
            c!(write(a.as_raw_fd(), bytes.as_ptr().cast(), bytes.len())),
        ];
        sent.map(|sent| sent.map(|n| n > 1000 && n < 10_000_000))
    });
    assert_eq!(outcome, [Ok(true), Err(EAGAIN)]);
}

#[test]
fn whoever_sends_much_waits_until_all_is_sent() {
    if !uthread::interposed() {
        // A signal of the runtime's may end a send when a part is sent.
        return;
    }
    const BYTES: usize = 2_000_000;
    type Sender = fn(RawFd) -> Outcome;
    let senders: [Sender; 6] = [
        |fd| send(fd, &pattern(BYTES), 0),
        |fd| c!(sendto(fd, pattern(BYTES).as_ptr().cast(), BYTES, 0, null(), 0)),
        |fd| c!(write(fd, pattern(BYTES).as_ptr().cast(), BYTES)),
        |fd| {
            let all = pattern(BYTES);
            let mut parts = [
                all[..10].to_vec(),
                vec![],
                all[10..BYTES / 2].to_vec(),
                all[BYTES / 2..].to_vec(),
            ];
            c!(writev(fd, vectors(&mut parts).as_ptr(), 4))
        },
        |fd| {
            let all = pattern(BYTES);
            let mut parts = [
                all[..10].to_vec(),
                vec![],
                all[10..BYTES / 2].to_vec(),
                all[BYTES / 2..].to_vec(),
            ];
            c!(sendmsg(fd, &message(&mut vectors(&mut parts)), 0))
        },
        |fd| {
            let all = pattern(BYTES);
            let mut parts = [all[..BYTES / 2].to_vec(), all[BYTES / 2..].to_vec()];
            let mut lists = parts.each_mut().map(|p| vectors(std::slice::from_mut(p)));
            let mut messages =
                lists.each_mut().map(|l| mmsghdr { msg_hdr: message(l), msg_len: 0 });
            let sent = c!(sendmmsg(fd, messages.as_mut_ptr(), 2, 0));
            assert!(messages.iter().all(|m| m.msg_len as usize == BYTES / 2));
            sent
        },
    ];
    let read_all = |mut from: Box<dyn Read>| {
        let mut all = vec![0; BYTES];
        from.read_exact(&mut all).unwrap();
        assert!(all == pattern(BYTES), "bytes are lost or change places");
    };
    for sender in senders {
        let small = || {
            let (a, b) = tcp();
            set_option(&a, libc::SO_SNDBUF, 50_000);
            set_option(&b, libc::SO_RCVBUF, 50_000);
            (a, b)
        };
        waiting(small, |a| sender(a.as_raw_fd()), |b| read_all(Box::new(b)));
        let pair = || UnixStream::pair().unwrap();
        waiting(pair, |a| sender(a.as_raw_fd()), |b| read_all(Box::new(b)));
    }
}

#[test]
fn who_does_not_wait_sends_what_there_is_room_for() {
    on_both(|| {
        let (a, _b) = of_kind(libc::SOCK_STREAM);
        let bytes = vec![0; 10_000_000];
        let first = send(a.as_raw_fd(), &bytes, MSG_DONTWAIT);
        let second = send(a.as_raw_fd(), &bytes, MSG_DONTWAIT);
        never_waits(&a);
        let mut parts = [vec![0; 10_000_000], vec![0; 10]];
        let mut list = vectors(&mut parts);
        let third = c!(writev(a.as_raw_fd(), list.as_ptr(), 2));
        let (c, _d) = of_kind(libc::SOCK_STREAM);
        never_waits(&c);
        let mut many = [mmsghdr { msg_hdr: message(&mut list), msg_len: 0 }; 2];
        let fourth = c!(sendmmsg(c.as_raw_fd(), many.as_mut_ptr(), 2, 0));
        (
            first,
            second,
            third,
            fourth,
            many.map(|m| m.msg_len),
            c!(write(c.as_raw_fd(), bytes.as_ptr().cast(), 1)),
        )
    });
}

#[test]
fn a_list_of_buffers_is_one_datagram() {
    type Sender = fn(RawFd, &[iovec]) -> Outcome;
    let senders: [Sender; 2] = [
        |fd, list| c!(writev(fd, list.as_ptr(), 3)),
        |fd, list| c!(sendmsg(fd, &message(&mut list.to_vec()), 0)),
    ];
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        for sender in senders {
            let received = waiting(
                || {
                    let (a, b) = of_kind(kind);
                    let filled = fill(&a);
                    (a, (b, filled))
                },
                |a| {
                    sender(
                        a.as_raw_fd(),
                        &vectors(&mut [b"ab".to_vec(), b"cd".to_vec(), b"e".to_vec()]),
                    )
                },
                |(b, filled)| {
                    for _ in 0..filled / 1000 {
                        assert_eq!(receive(b.as_raw_fd(), 1000, 0).0, Ok(1000));
                    }
                    receive(b.as_raw_fd(), 1000, 0).0
                },
            );
            assert_eq!(received, (Ok(5), Ok(5)));
        }
    }
}

#[test]
fn datagrams_that_are_too_large_or_go_nowhere_are_told() {
    on_both(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(send(socket.as_raw_fd(), &[0; 70_000], 0), Err(EMSGSIZE));
        assert_eq!(
            c!(write(socket.as_raw_fd(), [0_u8; 70_000].as_ptr().cast(), 70_000)),
            Err(EMSGSIZE)
        );
        assert_eq!(send(socket.as_raw_fd(), &[], 0), Ok(0));
        assert_eq!(receive(socket.as_raw_fd(), 10, 0).0, Ok(0));
        let (a, b) = UnixDatagram::pair().unwrap();
        assert_eq!(send(a.as_raw_fd(), &vec![0; 10_000_000], 0), Err(EMSGSIZE));
        drop(b);
        assert_eq!(send(a.as_raw_fd(), b"x", 0), Err(ECONNREFUSED));
        // Nobody listens there; the second call is told of it.
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        socket.connect(gone).unwrap();
        let first = send(socket.as_raw_fd(), b"x", 0);
        std::thread::sleep(Duration::from_millis(1));
        (first, receive(socket.as_raw_fd(), 10, 0).0)
    });
}

#[test]
fn datagrams_come_with_their_senders_address() {
    let (received, _) = waiting(
        || {
            let one = UdpSocket::bind("127.0.0.1:0").unwrap();
            let other = UdpSocket::bind("127.0.0.1:0").unwrap();
            let (to, from) = (one.local_addr().unwrap(), other.local_addr().unwrap());
            ((one, from), (other, to))
        },
        |(one, from)| {
            let mut buffer = [0; 10];
            let (n, address) = one.recv_from(&mut buffer).unwrap();
            (n, buffer, address == from)
        },
        |(other, to)| other.send_to(b"abc", to).unwrap(),
    );
    assert_eq!((received.0, received.2), (3, true));
}

#[test]
fn who_accepts_waits_for_a_connection() {
    for flags in
        [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK]
    {
        waiting(
            || {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                (listener, address)
            },
            |listener| {
                // SAFETY: integers.
                let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                let mut length = 100;
                let pointer: *mut libc::sockaddr_in = &mut address;
                let made =
                    own(c!(accept4(listener.as_raw_fd(), pointer.cast(), &mut length, flags)));
                let peer = TcpStream::from(made);
                let fd = peer.as_raw_fd();
                let port = u16::from_be(address.sin_port);
                assert_eq!(peer.peer_addr().unwrap().port(), port);
                (
                    length,
                    address.sin_family,
                    c!(fcntl(fd, libc::F_GETFL)),
                    c!(fcntl(fd, libc::F_GETFD)),
                )
            },
            |address| {
                let stream = TcpStream::connect(address).unwrap();
                uthread::sleep(Duration::from_millis(5));
                drop(stream);
            },
        );
    }
    on_both(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        never_waits(&listener);
        c!(accept(listener.as_raw_fd(), null_mut(), null_mut()))
    });
    waiting(
        || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.try_clone().unwrap(), listener)
        },
        |listener| c!(accept(listener.as_raw_fd(), null_mut(), null_mut())),
        |listener| c!(shutdown(listener.as_raw_fd(), libc::SHUT_RDWR)),
    );
}

/// A listener in whose queue there is no room, who fills the queue, and its address.
fn full_listener(folder: &Folder) -> (OwnedFd, UnixStream, libc::sockaddr_un) {
    let socket = own(c!(socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)));
    // SAFETY: integers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    let path = folder.path("s");
    // Of any length, by way of a descriptor of the folder.
    let folder = own(c!(open(folder.path(".").as_ptr(), libc::O_PATH | libc::O_CLOEXEC)));
    let short = format!("/proc/self/fd/{}/s", folder.as_raw_fd());
    for (to, from) in address.sun_path.iter_mut().zip(short.bytes()) {
        *to = from as libc::c_char;
    }
    c!(bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32))
        .unwrap();
    c!(listen(socket.as_raw_fd(), 0)).unwrap();
    let first = own(c!(socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)));
    c!(connect(first.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32))
        .unwrap();
    drop(path);
    // The folder's descriptor stays open for who connects.
    std::mem::forget(folder);
    (socket, first.into(), address)
}

fn connect_to(address: &libc::sockaddr_un, prepare: impl Fn(&OwnedFd)) -> Outcome {
    let socket = own(c!(socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)));
    prepare(&socket);
    c!(connect(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), size_of_val(address) as u32))
}

#[test]
fn connecting_to_a_full_queue_waits_for_room() {
    let connected = waiting(
        || {
            // The kernel looks the path up again when there is room.
            let folder = Arc::new(Folder::new());
            let (listener, first, address) = full_listener(&folder);
            ((folder, address), (listener, first))
        },
        |(_folder, address)| connect_to(&address, |_| ()),
        |(listener, _first)| {
            drop(own(c!(accept(listener.as_raw_fd(), null_mut(), null_mut()))));
            // The connection is made anew by its thread, which has to find the listener.
            own(c!(accept(listener.as_raw_fd(), null_mut(), null_mut())));
        },
    );
    assert_eq!(connected.0, Ok(0));
    let outcome = taking(TIME, || {
        let folder = Folder::new();
        let (_listener, _first, address) = full_listener(&folder);
        connect_to(&address, |socket| set_option(socket, SO_SNDTIMEO, timeval(TIME)))
    });
    assert_eq!(outcome, Err(EAGAIN));
    on_both(|| {
        let folder = Folder::new();
        let (_listener, _first, address) = full_listener(&folder);
        assert_eq!(connect_to(&address, never_waits), Err(EAGAIN));
    });
}

#[test]
fn connecting_where_nobody_answers_goes_on_in_the_background() {
    let outcomes = taking(2 * TIME, || {
        let listener = own(c!(socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
        // SAFETY: integers.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&address) as socklen_t;
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let pointer: *mut sockaddr = (&raw mut address).cast();
        c!(bind(listener.as_raw_fd(), pointer, length)).unwrap();
        c!(listen(listener.as_raw_fd(), 0)).unwrap();
        c!(getsockname(listener.as_raw_fd(), pointer, &mut length)).unwrap();
        let connect = |socket: &OwnedFd| c!(connect(socket.as_raw_fd(), pointer, length));
        let new = || own(c!(socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
        let first = new();
        connect(&first).unwrap();
        let socket = new();
        set_option(&socket, SO_SNDTIMEO, timeval(TIME));
        [connect(&socket), connect(&socket)]
    });
    assert_eq!(outcomes, [Err(EINPROGRESS), Err(libc::EALREADY)]);
}

#[test]
fn connecting_is_refused_or_told_why_not() {
    on_both(|| {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(TcpStream::connect(gone).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let (a, _b) = tcp();
        // SAFETY: integers.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        let pointer: *const sockaddr = (&raw const address).cast();
        let length = size_of_val(&address) as socklen_t;
        let unspecified = c!(connect(a.as_raw_fd(), pointer, length));
        address.sin_family = libc::AF_INET as u16;
        let (c, _d) = tcp();
        let fresh = own(c!(socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
        (
            unspecified,
            c!(connect(c.as_raw_fd(), (&raw const address).cast(), length)),
            c!(connect(fresh.as_raw_fd(), (&raw const address).cast(), 1)),
            c!(connect(fresh.as_raw_fd(), (&raw const address).cast(), u32::MAX)),
            c!(connect(fresh.as_raw_fd(), std::ptr::without_provenance(16), length)),
            c!(connect(-1, (&raw const address).cast(), length)),
            UnixStream::connect("/no/such/socket").unwrap_err().raw_os_error(),
        )
    });
}

#[test]
fn a_descriptor_that_is_closed_meanwhile_ends_no_wait() {
    let received = waiting(
        || {
            let (a, b) = tcp();
            (a.as_raw_fd(), (a, b))
        },
        |fd| receive(fd, 4, 0),
        |(a, mut b)| {
            // The call has the socket; nobody else has, as the number may be another's from now on.
            drop(a);
            b.write_all(b"late").unwrap();
        },
    );
    assert_eq!(received.0, (Ok(4), b"late".to_vec()));
}

#[test]
fn calls_go_through_where_threads_must_not_be_switched() {
    on_both(|| {
        let (a, b) = tcp();
        let receive = || {
            send(a.as_raw_fd(), b"abc", 0).unwrap();
            receive(b.as_raw_fd(), 3, 0)
        };
        (uthread::without_preemption(receive), uthread::blocking(receive))
    });
    // They block, and others run.
    waiting(
        tcp,
        |a| uthread::blocking(|| receive(a.as_raw_fd(), 3, 0)),
        |b| send(b.as_raw_fd(), b"abc", 0),
    );
}

#[test]
fn streams_of_std_carry_bytes_both_ways() {
    let echoed = waiting(
        tcp,
        |mut a| {
            let mut all = Vec::new();
            a.read_to_end(&mut all).unwrap();
            a.write_all(&all).unwrap();
            all.len()
        },
        |mut b| {
            b.write_all(&pattern(100_000)).unwrap();
            b.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            b.read_to_end(&mut back).unwrap();
            assert!(back == pattern(100_000));
        },
    );
    assert_eq!(echoed.0, 100_000);
    let pair = || UnixStream::pair().unwrap();
    let copied = waiting(
        pair,
        |mut a| std::io::copy(&mut a, &mut std::io::sink()).unwrap(),
        |mut b| b.write_all(&pattern(300_000)).unwrap(),
    );
    assert_eq!(copied.0, 300_000);
}
