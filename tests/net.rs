//! `uthread::net` behaves as `std::net`, on green threads and on OS threads.
//!
//! No test sleeps to let something happen: each waits for the event itself, and those whose event
//! may come before or after another one hold for both orders.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, getsockname,
    listen, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use uthread::net::{TcpListener, TcpStream};

/// Short enough for a test, long enough to be told from no wait at all.
const TIMEOUT: Duration = Duration::from_millis(30);

/// Runs a scenario on a green thread, then on the calling OS thread.
fn on_green_and_os_thread(scenario: fn()) {
    uthread::spawn(scenario).join().unwrap_or_else(|panic| resume_unwind(panic));
    scenario();
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Two connected streams: the connecting and the accepted one.
fn pair() -> (TcpStream, TcpStream) {
    let listener = listener();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    (client, server)
}

/// `length` bytes that repeat with a period no buffer size is a multiple of.
fn pattern(length: usize) -> Vec<u8> {
    let period = Vec::from_iter(0..251);
    let mut bytes = period.repeat(length.div_ceil(period.len()));
    bytes.truncate(length);
    bytes
}

#[track_caller]
fn assert_kind<T>(result: io::Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("success instead of {kind:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{error}"),
    }
}

/// Writes until that fails, which takes full buffers at both ends; the bytes that went out before.
fn fill(mut stream: &TcpStream) -> (usize, io::Error) {
    fill_by(|chunk| stream.write(chunk))
}

fn fill_by(mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> (usize, io::Error) {
    let chunk = vec![7; 256 << 10];
    let mut sent = 0;
    loop {
        match write(&chunk) {
            Ok(count) => sent += count,
            Err(error) => return (sent, error),
        }
    }
}

fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

mod connecting {
    use super::*;

    /// A socket that is bound but does not listen keeps its port from everybody else's use.
    fn bound_socket() -> (OwnedFd, SocketAddr) {
        let socket =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let name = getsockname::<SockaddrStorage>(socket.as_raw_fd()).unwrap();
        let address = SocketAddr::from(*name.as_sockaddr_in().unwrap());
        (socket, address)
    }

    /// A listener whose queue is full: further attempts to connect get no answer.
    fn deaf_listener() -> (OwnedFd, SocketAddr, TcpStream) {
        let (socket, address) = bound_socket();
        listen(&socket, Backlog::new(0).unwrap()).unwrap();
        let queued = TcpStream::connect(address).unwrap();
        (socket, address, queued)
    }

    #[test]
    fn connect_is_refused_where_nobody_listens() {
        on_green_and_os_thread(|| {
            let (_socket, address) = bound_socket();
            assert_kind(TcpStream::connect(address), ErrorKind::ConnectionRefused);
            let patience = Duration::from_secs(60);
            let result = TcpStream::connect_timeout(&address, patience);
            assert_kind(result, ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn connect_tries_each_address_and_gives_the_last_error() {
        on_green_and_os_thread(|| {
            let (_socket, refused) = bound_socket();
            let listener = listener();
            let address = listener.local_addr().unwrap();

            let stream = TcpStream::connect(&[refused, address][..]).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
            let result = TcpStream::connect(&[refused, refused][..]);
            assert_kind(result, ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn no_address_at_all_is_invalid_input() {
        on_green_and_os_thread(|| {
            let nowhere: &[SocketAddr] = &[];
            assert_kind(TcpStream::connect(nowhere), ErrorKind::InvalidInput);
            assert_kind(TcpListener::bind(nowhere), ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn connect_timeout_connects_in_time() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"in time").unwrap();
            let mut bytes = [0; 7];
            server.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"in time");
            assert_eq!(client.read_timeout().unwrap(), None);
        });
    }

    #[test]
    fn connect_timeout_gives_up_on_a_listener_that_does_not_answer() {
        on_green_and_os_thread(|| {
            let (_socket, address, _queued) = deaf_listener();
            let start = Instant::now();
            assert_kind(TcpStream::connect_timeout(&address, TIMEOUT), ErrorKind::TimedOut);
            assert!(start.elapsed() >= TIMEOUT);
        });
    }

    #[test]
    fn connect_timeout_of_zero_is_invalid_input() {
        on_green_and_os_thread(|| {
            let address = listener().local_addr().unwrap();
            let result = TcpStream::connect_timeout(&address, Duration::ZERO);
            assert_kind(result, ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn descriptors_are_closed_on_exec() {
        on_green_and_os_thread(|| {
            let (client, server) = pair();
            for stream in [client, server] {
                let flags = fcntl(&stream, FcntlArg::F_GETFD).unwrap();
                assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
            }
        });
    }

    #[test]
    fn addresses_of_both_families_are_reported() {
        on_green_and_os_thread(|| {
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let listener = match TcpListener::bind(host) {
                    // A machine without IPv6 has nothing to report.
                    Err(error) if host.starts_with('[') => {
                        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
                        continue;
                    }
                    listener => listener.unwrap(),
                };
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, peer) = listener.accept().unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                assert_eq!(server.peer_addr().unwrap(), peer);
                assert_eq!(server.local_addr().unwrap(), client.peer_addr().unwrap());
            }
        });
    }
}

mod listening {
    use super::*;

    #[test]
    fn incoming_yields_each_connection() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            let servers = listener.incoming().take(3);
            for (client, server) in clients.iter().zip(servers) {
                let server = server.unwrap();
                assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
            }
        });
    }

    #[test]
    fn accept_waits_for_a_client() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let client = uthread::spawn(move || TcpStream::connect(address).unwrap());
            let (_server, peer) = listener.accept().unwrap();
            assert_eq!(peer, client.join().unwrap().local_addr().unwrap());
        });
    }

    #[test]
    fn clones_accept_from_one_queue() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let clone = listener.try_clone().unwrap();
            let address = clone.local_addr().unwrap();
            let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
            listener.accept().unwrap();
            clone.accept().unwrap();
        });
    }

    #[test]
    fn a_dropped_listener_refuses_and_its_port_is_free() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let queued = TcpStream::connect(address).unwrap();
            drop(listener);

            assert_kind((&queued).read(&mut [0]), ErrorKind::ConnectionReset);
            assert_kind(TcpStream::connect(address), ErrorKind::ConnectionRefused);
            TcpListener::bind(address).unwrap();
        });
    }

    #[test]
    fn shutting_a_listener_down_ends_a_waiting_accept() {
        on_green_and_os_thread(|| {
            let listener = Arc::new(listener());
            let waiting = uthread::spawn({
                let listener = Arc::clone(&listener);
                move || listener.accept().map(drop)
            });
            shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Read).unwrap();
            assert_kind(waiting.join().unwrap(), ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn nonblocking_accept_would_block_and_accepted_streams_do_block() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let clone = listener.try_clone().unwrap();
            clone.set_nonblocking(true).unwrap();
            assert_kind(listener.accept(), ErrorKind::WouldBlock);

            // The connection stands before `connect` returns, so that it can be accepted.
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let reader = uthread::spawn(move || {
                let mut byte = [0];
                server.read_exact(&mut byte).unwrap();
                byte
            });
            client.write_all(b"!").unwrap();
            assert_eq!(&reader.join().unwrap(), b"!");

            listener.set_nonblocking(false).unwrap();
            let address = listener.local_addr().unwrap();
            let client = uthread::spawn(move || TcpStream::connect(address).map(drop));
            clone.accept().unwrap();
            client.join().unwrap().unwrap();
        });
    }

    #[test]
    fn accept_heeds_a_receive_timeout_and_hands_it_on() {
        on_green_and_os_thread(|| {
            let inner = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let timeout = TimeVal::milliseconds(TIMEOUT.as_millis() as i64);
            setsockopt(&inner, sockopt::ReceiveTimeout, &timeout).unwrap();
            let listener = TcpListener::from(inner);
            assert_kind(listener.accept(), ErrorKind::WouldBlock);

            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            assert!(server.read_timeout().unwrap().unwrap() >= TIMEOUT);
            assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
            server.set_read_timeout(None).unwrap();
            assert_kind(listener.accept(), ErrorKind::WouldBlock);
        });
    }

    #[test]
    #[expect(deprecated)]
    fn options_are_those_of_the_socket() {
        on_green_and_os_thread(|| {
            let listener = listener();
            listener.set_ttl(42).unwrap();
            assert_eq!(listener.ttl().unwrap(), 42);
            assert!(listener.take_error().unwrap().is_none());
            assert!(listener.set_only_v6(true).is_err());
            assert!(listener.only_v6().is_err(), "an IPv4 socket has no such option");
        });
    }
}

mod transfer {
    use super::*;

    #[test]
    fn echo_round_trip() {
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let server = uthread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                io::copy(&mut &stream, &mut &stream).unwrap()
            });
            let mut client = TcpStream::connect(address).unwrap();
            for message in [&b"one"[..], b"another", b"the last"] {
                client.write_all(message).unwrap();
                let mut echo = vec![0; message.len()];
                client.read_exact(&mut echo).unwrap();
                assert_eq!(echo, message);
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert!(read_to_end(&client).is_empty());
            assert_eq!(server.join().unwrap(), 18);
        });
    }

    #[test]
    fn hundreds_of_clients_echo_in_parallel() {
        const CLIENTS: usize = 256;
        const MESSAGES: usize = 8;
        on_green_and_os_thread(|| {
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let acceptor = uthread::spawn(move || {
                let serve = |stream: io::Result<TcpStream>| {
                    let stream = stream.unwrap();
                    uthread::spawn(move || io::copy(&mut &stream, &mut &stream).unwrap())
                };
                listener.incoming().take(CLIENTS).map(serve).collect::<Vec<_>>()
            });
            let clients = Vec::from_iter((0..CLIENTS).map(|client| {
                uthread::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for message in 0..MESSAGES {
                        let sent = [client, message].map(usize::to_ne_bytes).concat();
                        stream.write_all(&sent).unwrap();
                        let mut echo = vec![0; sent.len()];
                        stream.read_exact(&mut echo).unwrap();
                        assert_eq!(echo, sent);
                    }
                })
            }));
            clients.into_iter().for_each(|client| client.join().unwrap());
            let echoed = acceptor.join().unwrap().into_iter().map(|server| server.join().unwrap());
            let length = MESSAGES * 2 * size_of::<usize>();
            assert_eq!(echoed.sum::<u64>(), (CLIENTS * length) as u64);
        });
    }

    #[test]
    fn one_write_sends_more_than_the_buffers_hold() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            let sent = pattern(16 << 20);
            let expected = sent.clone();
            let writer = uthread::spawn(move || client.write(&sent).unwrap());
            assert!(read_to_end(&server) == expected, "bytes differ");
            assert_eq!(writer.join().unwrap(), expected.len());
        });
    }

    #[test]
    fn one_vectored_write_sends_more_than_the_buffers_hold() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            let sent = pattern(16 << 20);
            let expected = sent.clone();
            let writer = uthread::spawn(move || {
                // Slices of unlike lengths, some of them empty, so that a short write ends in one.
                let (head, tail) = sent.split_at(sent.len() / 3 + 1);
                let (first, second) = head.split_at(5);
                let slices = [&[], first, &[], second, tail, &[]].map(IoSlice::new);
                client.write_vectored(&slices).unwrap()
            });
            assert!(read_to_end(&server) == expected, "bytes differ");
            assert_eq!(writer.join().unwrap(), expected.len());
        });
    }

    #[test]
    fn vectored_calls_gather_and_scatter() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            let gathered = [&b"he"[..], b"", b"llo ", b"world"].map(IoSlice::new);
            assert_eq!(client.write_vectored(&gathered).unwrap(), 11);

            let (mut head, mut tail) = ([0; 3], [0; 20]);
            let mut scattered = [&mut head[..], &mut [], &mut tail[..]].map(IoSliceMut::new);
            assert_eq!(server.read_vectored(&mut scattered).unwrap(), 11);
            assert_eq!((&head[..], &tail[..8]), (&b"hel"[..], &b"lo world"[..]));
        });
    }

    #[test]
    fn vectored_calls_take_no_more_slices_than_the_kernel() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            let most = nix::libc::UIO_MAXIOV as usize;
            let byte = [1];
            let slices = vec![IoSlice::new(&byte); most + 1];
            assert_eq!(client.write_vectored(&slices).unwrap(), most);

            let mut bytes = vec![0; most + 1];
            let mut slices: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
            assert_eq!(server.read_vectored(&mut slices).unwrap(), most);
            assert_eq!(bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>(), most);
        });
    }

    #[test]
    fn peek_leaves_the_bytes() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            client.write_all(b"peek").unwrap();
            let mut bytes = [0; 8];
            for _ in 0..2 {
                assert_eq!(server.peek(&mut bytes).unwrap(), 4);
                assert_eq!(&bytes[..4], b"peek");
            }
            assert_eq!(server.read(&mut bytes).unwrap(), 4);
            drop(client);
            assert_eq!(server.peek(&mut bytes).unwrap(), 0);
        });
    }

    #[test]
    fn peek_waits_for_the_first_byte() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            let peeker = uthread::spawn(move || {
                let mut byte = [0];
                server.peek(&mut byte).map(|count| (count, byte, server))
            });
            client.write_all(b"?").unwrap();
            let (count, byte, mut server) = peeker.join().unwrap().unwrap();
            assert_eq!((count, &byte), (1, b"?"));
            assert_eq!(server.read(&mut [0; 2]).unwrap(), 1);
        });
    }

    #[test]
    fn empty_buffers_move_nothing() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            assert_eq!(client.write(&[]).unwrap(), 0);
            assert_eq!(client.write_vectored(&[]).unwrap(), 0);
            assert_eq!(client.write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
            // Without a byte to read: `readv` does not wait for one.
            assert_eq!(server.read_vectored(&mut []).unwrap(), 0);
            assert_eq!(server.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(), 0);

            client.write_all(b"x").unwrap();
            assert_eq!(server.read(&mut []).unwrap(), 0);
            assert_eq!(server.peek(&mut []).unwrap(), 0);
            let mut byte = [0];
            assert_eq!(server.read(&mut byte).unwrap(), 1);
            drop(client);
            assert_eq!(server.read(&mut []).unwrap(), 0);
        });
    }

    #[test]
    fn two_threads_read_and_write_one_stream_at_once() {
        on_green_and_os_thread(|| {
            let (client, server) = pair();
            let client = Arc::new(client);
            let sent = Arc::new(pattern(4 << 20));
            let echo = uthread::spawn(move || {
                io::copy(&mut &server, &mut &server).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            let writer = uthread::spawn({
                let (client, sent) = (Arc::clone(&client), Arc::clone(&sent));
                move || {
                    (&*client).write_all(&sent).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                }
            });
            let reader = uthread::spawn(move || read_to_end(&client));
            writer.join().unwrap();
            assert!(reader.join().unwrap() == *sent, "bytes differ");
            echo.join().unwrap();
        });
    }

    #[test]
    fn a_stream_moves_between_green_and_os_threads() {
        let (mut client, mut server) = pair();
        let server = uthread::spawn(move || {
            server.write_all(b"from green").unwrap();
            server
        });
        let mut bytes = [0; 10];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"from green");

        let mut server = server.join().unwrap();
        server.write_all(b"from the OS").unwrap();
        let mut bytes = [0; 11];
        let reader = uthread::spawn(move || client.read_exact(&mut bytes).map(|()| bytes));
        assert_eq!(&reader.join().unwrap().unwrap(), b"from the OS");
    }
}

mod ending {
    use super::*;

    #[test]
    fn shutdown_of_one_half_keeps_the_other() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            client.write_all(b"last words").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&server), b"last words");
            assert_kind(client.write(b"x"), ErrorKind::BrokenPipe);
            assert_kind(client.write_vectored(&[IoSlice::new(b"x")]), ErrorKind::BrokenPipe);

            server.write_all(b"answer").unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"answer");

            server.shutdown(Shutdown::Read).unwrap();
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        });
    }

    #[test]
    fn shutdown_by_another_thread_ends_a_waiting_read() {
        on_green_and_os_thread(|| {
            let (client, _server) = pair();
            let client = Arc::new(client);
            let reader = uthread::spawn({
                let client = Arc::clone(&client);
                move || (&*client).read(&mut [0]).unwrap()
            });
            client.shutdown(Shutdown::Both).unwrap();
            assert_eq!(reader.join().unwrap(), 0);
            assert_kind((&*client).write(b"x"), ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn shutdown_by_another_thread_ends_a_waiting_write() {
        on_green_and_os_thread(|| {
            let (client, _server) = pair();
            let client = Arc::new(client);
            client.set_nonblocking(true).unwrap();
            fill(&client);
            client.set_nonblocking(false).unwrap();
            let writer = uthread::spawn({
                let client = Arc::clone(&client);
                move || (&*client).write_all(&vec![0; 16 << 20])
            });
            client.shutdown(Shutdown::Write).unwrap();
            assert_kind(writer.join().unwrap(), ErrorKind::BrokenPipe);
        });
    }

    /// Closes `stream` with a reset instead of an orderly end.
    fn reset(stream: TcpStream) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    }

    #[test]
    fn a_reset_by_the_peer_is_an_error_of_the_next_read() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            reset(server);
            assert_kind(client.read(&mut [0]), ErrorKind::ConnectionReset);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            assert_kind(client.write(b"x"), ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn a_reset_by_the_peer_ends_a_waiting_read() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            let reader = uthread::spawn(move || client.read(&mut [0]));
            reset(server);
            assert_kind(reader.join().unwrap(), ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_reset_by_the_peer_ends_a_waiting_write() {
        on_green_and_os_thread(|| {
            let (client, server) = pair();
            client.set_nonblocking(true).unwrap();
            fill(&client);
            client.set_nonblocking(false).unwrap();
            let writer = uthread::spawn(move || (&client).write_all(&vec![0; 16 << 20]));
            reset(server);
            let error = writer.join().unwrap().unwrap_err();
            // A write that had sent some bytes reports these; the error is that of the next one.
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&error.kind()), "{error}");
        });
    }
}

mod timeouts {
    use super::*;

    #[test]
    fn read_times_out_with_would_block_and_the_stream_stays_usable() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            let start = Instant::now();
            assert_kind(client.read(&mut [0]), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= TIMEOUT);
            assert_kind(client.peek(&mut [0]), ErrorKind::WouldBlock);
            let mut slices = [0; 1];
            let mut slices = [IoSliceMut::new(&mut slices)];
            assert_kind(client.read_vectored(&mut slices), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= 3 * TIMEOUT);

            server.write_all(b"late").unwrap();
            let mut bytes = [0; 4];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"late");
        });
    }

    #[test]
    fn read_timeout_can_be_taken_off() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            client.set_read_timeout(None).unwrap();
            assert_eq!(client.read_timeout().unwrap(), None);
            // The peer answers only once its own read has timed out.
            let answer = uthread::spawn(move || {
                server.set_read_timeout(Some(3 * TIMEOUT)).unwrap();
                assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
                server.write_all(b"!").unwrap();
            });
            client.read_exact(&mut [0]).unwrap();
            answer.join().unwrap();
        });
    }

    #[test]
    fn write_times_out_with_full_buffers_and_the_stream_stays_usable() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            client.set_write_timeout(Some(TIMEOUT)).unwrap();
            let (sent, error) = fill(&client);
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            let (more, error) = fill_by(|chunk| client.write_vectored(&[IoSlice::new(chunk)]));
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");

            let reader = uthread::spawn(move || read_to_end(&server));
            client.write_all(b"usable").unwrap();
            drop(client);
            let received = reader.join().unwrap();
            assert_eq!(received.len(), sent + more + 6, "each byte reported as sent, and no other");
            assert!(received.ends_with(b"usable"));
        });
    }

    #[test]
    fn write_that_times_out_midway_reports_what_went_out() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            client.set_write_timeout(Some(TIMEOUT)).unwrap();
            let bytes = pattern(64 << 20);
            let sent = client.write(&bytes).unwrap();
            assert!(0 < sent && sent < bytes.len());
            drop(client);
            assert!(read_to_end(&server) == bytes[..sent], "bytes differ");
        });
    }

    #[test]
    fn timeouts_of_zero_are_invalid_input_and_change_nothing() {
        on_green_and_os_thread(|| {
            let (mut client, _server) = pair();
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            let before = client.read_timeout().unwrap();
            assert_kind(client.set_read_timeout(Some(Duration::ZERO)), ErrorKind::InvalidInput);
            assert_kind(client.set_write_timeout(Some(Duration::ZERO)), ErrorKind::InvalidInput);
            assert_eq!(client.read_timeout().unwrap(), before);
            assert_eq!(client.write_timeout().unwrap(), None);
            assert_kind(client.read(&mut [0]), ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn a_timeout_of_a_nanosecond_or_of_ages_is_taken() {
        on_green_and_os_thread(|| {
            let (mut client, mut server) = pair();
            client.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
            assert_kind(client.read(&mut [0]), ErrorKind::WouldBlock);
            client.set_read_timeout(Some(Duration::MAX)).unwrap();
            let reader = uthread::spawn(move || client.read_exact(&mut [0]));
            server.write_all(b"!").unwrap();
            reader.join().unwrap().unwrap();
        });
    }

    #[test]
    fn clones_share_timeouts() {
        on_green_and_os_thread(|| {
            let (mut client, _server) = pair();
            let mut clone = client.try_clone().unwrap();
            clone.set_read_timeout(Some(TIMEOUT)).unwrap();
            client.set_write_timeout(Some(TIMEOUT)).unwrap();
            assert_eq!(client.read_timeout().unwrap(), clone.read_timeout().unwrap());
            assert_kind(client.read(&mut [0]), ErrorKind::WouldBlock);
            assert_kind(clone.read(&mut [0]), ErrorKind::WouldBlock);
            assert_eq!(fill(&clone).1.kind(), ErrorKind::WouldBlock);
            assert_eq!(fill(&client).1.kind(), ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn conversions_keep_timeouts() {
        on_green_and_os_thread(|| {
            let (client, _server) = pair();
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            client.set_write_timeout(Some(2 * TIMEOUT)).unwrap();
            let expected = (client.read_timeout().unwrap(), client.write_timeout().unwrap());

            let std = std::net::TcpStream::from(client);
            assert_eq!((std.read_timeout().unwrap(), std.write_timeout().unwrap()), expected);
            let back = TcpStream::from(std);
            assert_kind((&back).read(&mut [0]), ErrorKind::WouldBlock);

            let back = TcpStream::from(OwnedFd::from(back));
            assert_kind((&back).read(&mut [0]), ErrorKind::WouldBlock);

            // SAFETY: `into_raw_fd` gives the descriptor away.
            let mut back = unsafe { TcpStream::from_raw_fd(back.into_raw_fd()) };
            assert_kind(back.read(&mut [0]), ErrorKind::WouldBlock);
            assert_eq!(fill(&back).1.kind(), ErrorKind::WouldBlock);
            assert_eq!((back.read_timeout().unwrap(), back.write_timeout().unwrap()), expected);
        });
    }
}

mod nonblocking {
    use super::*;

    #[test]
    fn nothing_waits_until_blocking_mode_is_back() {
        on_green_and_os_thread(|| {
            let (mut client, server) = pair();
            client.set_nonblocking(true).unwrap();
            assert_kind(client.read(&mut [0]), ErrorKind::WouldBlock);
            assert_kind(client.peek(&mut [0]), ErrorKind::WouldBlock);
            let mut slice = [0];
            let mut slices = [IoSliceMut::new(&mut slice)];
            assert_kind(client.read_vectored(&mut slices), ErrorKind::WouldBlock);
            let (sent, error) = fill(&client);
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            let (more, error) = fill_by(|chunk| client.write_vectored(&[IoSlice::new(chunk)]));
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");

            client.set_nonblocking(false).unwrap();
            let writer = uthread::spawn(move || client.write_all(&[8; 1 << 20]));
            assert_eq!(read_to_end(&server).len(), sent + more + (1 << 20));
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn clones_and_conversions_keep_the_mode() {
        on_green_and_os_thread(|| {
            let (client, _server) = pair();
            let clone = client.try_clone().unwrap();
            client.set_nonblocking(true).unwrap();
            assert_kind((&clone).read(&mut [0]), ErrorKind::WouldBlock);
            let back = TcpStream::from(std::net::TcpStream::from(client));
            assert_kind((&back).read(&mut [0]), ErrorKind::WouldBlock);
            let back = TcpStream::from(OwnedFd::from(back));
            assert_kind((&back).read(&mut [0]), ErrorKind::WouldBlock);

            let listener = listener();
            listener.set_nonblocking(true).unwrap();
            let back = TcpListener::from(std::net::TcpListener::from(listener));
            assert_kind(back.accept(), ErrorKind::WouldBlock);
            let back = TcpListener::from(OwnedFd::from(back));
            assert_kind(back.accept(), ErrorKind::WouldBlock);
            // SAFETY: `into_raw_fd` gives the descriptor away.
            let back = unsafe { TcpListener::from_raw_fd(back.into_raw_fd()) };
            assert_kind(back.accept(), ErrorKind::WouldBlock);
        });
    }
}

mod face {
    use super::*;
    use std::panic::{RefUnwindSafe, UnwindSafe};

    #[test]
    fn the_types_have_the_auto_traits_of_std() {
        fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
        check::<TcpStream>();
        check::<TcpListener>();
        check::<uthread::net::Incoming<'static>>();
    }

    #[test]
    fn the_types_print_as_those_of_std() {
        let (client, _server) = pair();
        let printed = format!("{client:?}");
        assert_eq!(printed, format!("{:?}", std::net::TcpStream::from(client)));
        let listener = listener();
        let printed = format!("{listener:?}");
        assert_eq!(printed, format!("{:?}", std::net::TcpListener::from(listener)));
    }

    #[test]
    fn stream_options_are_those_of_the_socket() {
        on_green_and_os_thread(|| {
            let (client, _server) = pair();
            assert!(!client.nodelay().unwrap());
            client.set_nodelay(true).unwrap();
            assert!(client.nodelay().unwrap());
            client.set_ttl(42).unwrap();
            assert_eq!(client.ttl().unwrap(), 42);
            client.set_quickack(true).unwrap();
            assert!(client.quickack().unwrap());
            assert!(client.take_error().unwrap().is_none());
            assert_eq!(client.as_fd().as_raw_fd(), client.as_raw_fd());
        });
    }

    #[test]
    fn a_descriptor_that_is_no_socket_says_so_at_first_use() {
        on_green_and_os_thread(|| {
            let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let mut stream = TcpStream::from(file);
            let error = stream.read(&mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTSOCK));
            let error = stream.write(&[0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTSOCK));
        });
    }
}
