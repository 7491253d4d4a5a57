//! Limits on what peers may take, on each kind of threads.

#[allow(dead_code, reason = "other tests use more of it")]
mod common;

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use uthread_httpd::{GreenThreads, InPlace, Limits, Request, Response, Server, Status, Threads};

use common::{ALL, CONCURRENT, GET, PATIENCE, Running, wait_until};

const SHORT: Duration = Duration::from_millis(100);

fn hello(_: &Request<'_>) -> Response<'static> {
    Response::text(Status::OK, "hello")
}

#[test]
fn a_body_beyond_its_limit_is_refused() {
    for kind in ALL {
        let running = Running::start(kind, Limits { body: 10, ..Limits::default() }, hello);
        let plain = |length: usize| {
            format!(
                "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{:1$}",
                "", length
            )
        };
        let chunked = |chunks: &str| {
            format!("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
        };
        running.connect().send(GET);
        for fits in [plain(10), chunked("5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")] {
            let mut client = running.connect();
            client.send(fits);
            client.expect(200);
        }
        running.expect_last(plain(11), 413);
        running.expect_last(chunked("5\r\nhello\r\n6\r\n"), 413);
    }
}

#[test]
fn a_head_beyond_its_limit_is_refused() {
    for kind in ALL {
        let running = Running::start(kind, Limits { head: 100, ..Limits::default() }, hello);
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nHost: test\r\nPad: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: test\r\nPad: {}\r\n\r\n", "x".repeat(length - rest))
        };
        let mut client = running.connect();
        client.send(head(100));
        client.expect(200);
        drop(client);
        running.expect_last(head(101), 431);
    }
}

#[test]
fn a_request_that_drips_is_given_up_however_steadily() {
    for kind in ALL {
        let limits = Limits { request: SHORT, ..Limits::default() };
        let running = Running::start(kind, limits, hello);
        let mut client = running.connect();
        let begun = Instant::now();
        client.send("GET / HTTP/1.1\r\nPad: ");
        client.stream.set_read_timeout(Some(SHORT / 20)).unwrap();
        while client.stream.peek(&mut [0]).is_err() {
            client.send("x");
            assert!(begun.elapsed() < PATIENCE, "each byte renewed the time limit");
        }
        assert!(begun.elapsed() >= SHORT, "gave up too early");
        client.expect(408);
    }
}

#[test]
fn a_silent_connection_is_closed_and_the_next_one_served() {
    for kind in ALL {
        let running = Running::start(kind, Limits { idle: SHORT, ..Limits::default() }, hello);
        running.connect().expect_end();
        let mut client = running.connect();
        client.send(GET);
        client.expect(200);
        client.expect_end();
    }
}

#[test]
fn a_reader_that_stalls_is_given_up() {
    for kind in ALL {
        let limits = Limits { write: SHORT, request: SHORT, ..Limits::default() };
        // More than the buffers of both sides can hold.
        let running = Running::start(kind, limits, |_: &Request<'_>| {
            Response::new(Status::OK, "application/octet-stream", vec![1; 64 << 20])
        });
        let mut client = running.connect();
        client.send(GET);
        wait_until("it is accepted", || running.server.accepted() == 1);
        wait_until("it is given up", || running.server.open() == 0);
        let mut received = Vec::new();
        let _ = client.stream.read_to_end(&mut received);
        assert!(received.len() < 64 << 20, "it cannot have got all");
    }
}

#[test]
fn a_reader_that_is_slow_gets_all() {
    for kind in ALL {
        let limits = Limits { write: SHORT, ..Limits::default() };
        let running = Running::start(kind, limits, |_: &Request<'_>| {
            Response::new(Status::OK, "application/octet-stream", vec![1; 16 << 20])
        });
        let mut client = running.connect();
        client.send(GET);
        let begun = Instant::now();
        let mut piece = vec![0; 256 << 10];
        let mut received = 0;
        // Longer than one write may take, if not as long as all of them may.
        while received < 16 << 20 {
            let count = client.stream.read(&mut piece).unwrap();
            assert_ne!(count, 0, "cut off after {received} bytes, {:?}", begun.elapsed());
            received += count;
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_others_to_end() {
    for kind in CONCURRENT {
        let limits = Limits { connections: Some(2), ..Limits::default() };
        let running = Running::start(kind, limits, hello);
        let mut first = running.connect();
        let mut second = running.connect();
        first.begin_request();
        second.begin_request();
        let mut third = running.connect();
        third.send(GET);
        third.stream.set_read_timeout(Some(SHORT)).unwrap();
        assert!(third.stream.peek(&mut [0]).is_err(), "{kind:?}: there is no room");
        third.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(running.server.accepted(), 2);
        drop(second);
        third.expect(200);
        first.send("12345");
        first.expect(200);
    }
}

#[test]
fn connections_that_are_idle_make_room() {
    for kind in CONCURRENT {
        let limits = Limits { connections: Some(3), ..Limits::default() };
        let running = Running::start(kind, limits, hello);
        let mut busy = running.connect();
        busy.begin_request();
        let mut idle = running.connect();
        idle.send(GET);
        idle.expect(200);
        let silent = running.connect();
        let mut late = running.connect();
        late.send(GET);
        late.expect(200);
        idle.expect_end();
        silent.expect_end();
        busy.send("12345");
        busy.expect(200);
    }
}

#[test]
fn the_next_connection_is_served_although_one_got_no_thread() {
    /// Fails every second time.
    struct Scarce(AtomicUsize);

    impl Threads for Scarce {
        fn start(&self, connection: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            match self.0.fetch_add(1, SeqCst) % 2 {
                0 => Err(io::ErrorKind::OutOfMemory.into()),
                _ => InPlace.start(connection),
            }
        }
    }

    let scarce = Scarce(AtomicUsize::new(0));
    let running = Running::start_on(scarce, Limits::default(), hello);
    for _ in 0..3 {
        let mut refused = running.connect();
        assert_eq!(refused.expect(503).field("Retry-After"), Some("1"));
        refused.expect_end();
        let mut served = running.connect();
        served.send(GET);
        served.expect(200);
    }
    wait_until("no connection is left", || running.server.open() == 0);
}

#[test]
fn limits_under_which_nothing_could_be_served_are_refused() {
    let sound = Limits::default();
    for limits in [
        Limits { request: Duration::ZERO, ..sound },
        Limits { idle: Duration::ZERO, ..sound },
        Limits { write: Duration::ZERO, ..sound },
        Limits { head: 0, ..sound },
        Limits { connections: Some(0), ..sound },
    ] {
        let bound = Server::bind(([127, 0, 0, 1], 0).into(), limits, hello, GreenThreads::new());
        assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{limits:?}");
    }
}

#[test]
fn limits_may_be_meant_as_for_ever() {
    let ever = Duration::MAX;
    for kind in ALL {
        let limits = Limits {
            body: usize::MAX,
            head: usize::MAX,
            request: ever,
            idle: ever,
            write: ever,
            drain: ever,
            connections: Some(usize::MAX),
        };
        let running = Running::start(kind, limits, hello);
        let mut client = running.connect();
        client.begin_request();
        client.send("12345");
        client.expect(200);
        let mut client = running.connect();
        let length = usize::MAX;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    }
}
