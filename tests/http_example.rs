//! The `http` example as its clients see it: a process behind a socket.
//!
//! Each test starts a server of its own on a port that the kernel chooses, talks to it over plain
//! `std` sockets, and ends it by its handle. `cargo test` builds the examples first; so does
//! `cargo build --example http`, which a run of this file alone needs.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// When to give up on something that should take no time at all. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The limits that the server documents.
const HEAD_LIMIT: usize = 16 * 1024;
const BODY_LIMIT: usize = 1024 * 1024;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const HELLO: &[u8] = b"Hello, World!";

// ------------------------------------------------------------------------------------------------
// Keeping connections
// ------------------------------------------------------------------------------------------------

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..100 {
        client.send(GET);
        client.expect(200, HELLO);
    }
}

#[test]
#[cfg(feature = "prometheus")]
fn a_monitoring_system_gets_the_figures_of_the_runtime_that_serves_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("uthread_op_latency_seconds_count{op=\"accept\"} 1\n"), "{text}");
    client.send("HEAD /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
}

#[test]
fn hundreds_of_connections_are_served_at_once() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    for round in 0..3 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(post("/echo", format!("{round} {i}").as_bytes()));
        }
        for (i, client) in clients.iter_mut().enumerate() {
            client.expect(200, format!("{round} {i}").as_bytes());
        }
    }
}

#[test]
fn sixteen_requests_in_one_packet_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut packet = Vec::new();
    for i in 0..4 {
        packet.extend(GET.as_bytes());
        packet.extend(post("/echo", format!("plain {i}").as_bytes()));
        packet.extend(b"GET /missing HTTP/1.1\r\nHost: test\r\n\r\n");
        packet.extend(post_chunked(&format!("4\r\nsome\r\n2\r\n {i}\r\n0\r\n\r\n")));
    }
    client.send(packet);
    for i in 0..4 {
        client.expect(200, HELLO);
        client.expect(200, format!("plain {i}").as_bytes());
        client.expect(404, b"");
        client.expect(200, format!("some {i}").as_bytes());
    }
    client.send(GET);
    client.expect(200, HELLO);
}

#[test]
fn thousands_of_pipelined_requests_are_all_answered() {
    const REQUESTS: usize = 5000;
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || sender.write_all(GET.repeat(REQUESTS).as_bytes()));
    for _ in 0..REQUESTS {
        client.expect(200, HELLO);
    }
    sending.join().unwrap().unwrap();
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for request in [
        GET.as_bytes(),
        &post("/echo", HELLO),
        &post_chunked("d;x=y\r\nHello, World!\r\n0\r\nT: u\r\n\r\n"),
    ] {
        for byte in request {
            client.send([*byte]);
        }
        client.expect(200, HELLO);
    }
}

#[test]
fn a_client_that_closed_its_side_still_gets_its_answers() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(GET.repeat(2));
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.expect(200, HELLO);
    client.expect(200, HELLO);
    client.expect_end();
}

#[test]
fn version_and_connection_field_decide_whether_the_connection_stays() {
    let server = Server::start(&[]);
    let stays = [
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive")),
        ("GET / HTTP/1.0\r\nHost: test\r\nConnection: Foo, Keep-Alive\r\n\r\n", Some("keep-alive")),
        ("GET / HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n", None),
    ];
    for (request, option) in stays {
        let mut client = server.connect();
        for _ in 0..2 {
            client.send(request);
            assert_eq!(client.expect(200, HELLO).field("Connection"), option, "{request:?}");
        }
    }
    let ends = [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nCONNECTION: foo,Close\r\n\r\n",
    ];
    for request in ends {
        let mut client = server.connect();
        client.send(request);
        client.send(GET); // must not be answered any more
        assert_eq!(client.expect(200, HELLO).field("Connection"), Some("close"), "{request:?}");
        client.expect_end();
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::start(&["--idle-timeout", "3"]);
    let fresh = server.connect();
    let mut used = server.connect();
    used.send(GET);
    used.expect(200, HELLO);
    used.expect_end();
    fresh.expect_end();
}

// ------------------------------------------------------------------------------------------------
// Resources
// ------------------------------------------------------------------------------------------------

#[test]
fn head_gets_the_fields_without_the_body() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.response_head();
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Content-Length"), Some("13"));
    client.send(GET); // a body would be taken for the start of this answer
    client.expect(200, HELLO);
}

#[test]
fn targets_and_methods_are_told_apart() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let cases = [
        ("GET /?query", 200, None),
        ("GET http://test/", 200, None),
        ("GET http://test", 200, None),
        ("GET /missing", 404, None),
        ("GET //", 404, None),
        ("OPTIONS *", 404, None),
        ("DELETE /", 405, Some("GET, HEAD")),
        ("GET /echo", 405, Some("POST")),
    ];
    for (start, status, allow) in cases {
        client.send(format!("{start} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{start}");
        assert_eq!(response.field("Allow"), allow, "{start}");
    }
    // The body is not taken for a request even where it is of no use.
    for (path, status) in [("/", 405), ("/missing", 404)] {
        client.send(post(path, GET.as_bytes()));
        client.expect(status, b"");
    }
}

#[test]
fn echo_returns_bodies_of_all_sizes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for size in [0, 1, 511, 512, 513, 100_000, BODY_LIMIT, 7] {
        let body = bytes(size);
        client.send(post("/echo", &body));
        client.expect(200, &body);
    }
}

#[test]
fn echo_decodes_chunks_wherever_they_are_cut() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let request = post_chunked(
        "5\r\nHello\r\n1;a=\"b c\";d\r\n,\r\n007 \t;x\r\n World!\r\n000\r\nT: u\r\nV:\r\n\r\n",
    );
    for cut in 0..request.len() {
        client.send(&request[..cut]);
        client.send(&request[cut..]);
        client.expect(200, HELLO);
    }
}

#[test]
fn echo_takes_a_chunked_body_up_to_the_limit() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let body = bytes(BODY_LIMIT);
    let mut request = post_chunked("");
    for chunk in body.chunks(1000) {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    client.send(request);
    client.expect(200, &body);
}

#[test]
fn a_client_that_expects_100_is_told_to_continue() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let framed = [
        ("Content-Length: 13", "Hello, World!"),
        ("Transfer-Encoding: chunked", "d\r\nHello, World!\r\n0\r\n\r\n"),
    ];
    for (framing, body) in framed {
        client.send(format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"
        ));
        assert_eq!(client.response_head().status, 100);
        client.send(body);
        client.expect(200, HELLO);
    }
    // There is nothing to wait for if the body is there or will not come, and HTTP/1.0 does not
    // know the field.
    let expecting = |start: &str, body: &str| {
        let length = body.len();
        format!(
            "{start}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    client.send(expecting("POST /echo HTTP/1.1", "body"));
    client.expect(200, b"body");
    client.send(expecting("GET / HTTP/1.1", ""));
    client.expect(200, HELLO);
    client.send(expecting("POST /echo HTTP/1.0", "body"));
    client.expect(200, b"body");
    client.expect_end();
}

// ------------------------------------------------------------------------------------------------
// Refusals
// ------------------------------------------------------------------------------------------------

#[test]
fn malformed_requests_are_refused() {
    let server = Server::start(&[]);
    let cases = [
        "\0\x01\x02\x03",
        "garbage\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: test\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nName : space\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nName: folded\r\n value\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nName: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nName: a\rb\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: five\r\n\r\nhello",
    ];
    for case in cases {
        server.expect_refusal(case, 400);
    }
}

#[test]
fn requests_with_two_readings_are_refused() {
    let server = Server::start(&[]);
    let framings = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 99999999999999999999",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \"chunked\"",
    ];
    for framing in framings {
        server.expect_refusal(
            format!("POST /echo HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n0\r\n\r\n{GET}"),
            400,
        );
    }
    server
        .expect_refusal("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    server.expect_refusal(
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    );
}

#[test]
fn malformed_chunks_are_refused() {
    let server = Server::start(&[]);
    let cases = [
        "\r\n",
        "x\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        ";ext\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nTrailer: t\n\r\n",
        "0\r\nTrailer: t\ru\r\n\r\n",
        "10000000000000000\r\n",
    ];
    for case in cases {
        server.expect_refusal(post_chunked(&format!("{case}{GET}")), 400);
    }
    server.expect_refusal(post_chunked(&format!("5;{}", "x".repeat(HEAD_LIMIT))), 400);
    server.expect_refusal(
        post_chunked(&format!("0\r\n{}", "Trailer: t\r\n".repeat(HEAD_LIMIT / 8))),
        431,
    );
}

#[test]
fn a_head_has_a_limit() {
    let server = Server::start(&[]);
    let head = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: test\r\nPad: ";
        let end = "\r\n\r\n";
        format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
    };
    let mut client = server.connect();
    client.send(head(HEAD_LIMIT));
    client.expect(200, HELLO);
    server.expect_refusal(head(HEAD_LIMIT + 1), 431);
    server.expect_refusal(head(10 * HEAD_LIMIT), 431);
    server.expect_refusal("x".repeat(HEAD_LIMIT), 431);
    server.expect_refusal(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)), 431);

    let body = bytes(5 * HEAD_LIMIT);
    client.send([post("/echo", &body), head(HEAD_LIMIT + 1).into_bytes()].concat());
    client.expect(200, &body);
    client.expect(431, b"");
    client.expect_end();
}

#[test]
fn a_body_has_a_limit() {
    let server = Server::start(&[]);
    let announced = |length: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
    };
    server.expect_refusal(announced(&(BODY_LIMIT + 1).to_string()), 413);
    server.expect_refusal(announced("99999999999999999999999999"), 413);
    server.expect_refusal(post_chunked(&format!("{:x}\r\n", BODY_LIMIT + 1)), 413);
    server.expect_refusal(post_chunked("ffffffffffffffff\r\n"), 413);

    let mut chunks = post_chunked("");
    for _ in 0..=BODY_LIMIT / 0x1000 {
        chunks.extend(b"1000\r\n");
        chunks.extend(bytes(0x1000));
        chunks.extend(b"\r\n");
    }
    server.expect_refusal(chunks, 413);
}

/// The refusal must survive that the server closes a connection on which it has not read all.
#[test]
fn a_client_that_sends_first_and_reads_later_still_learns_of_the_refusal() {
    let server = Server::start(&[]);
    server.expect_refusal(post("/echo", &bytes(4 * BODY_LIMIT)), 413);
}

#[test]
fn requests_before_the_refused_one_are_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(format!("{GET}{GET}garbage\r\n\r\n"));
    client.expect(200, HELLO);
    client.expect(200, HELLO);
    client.expect(400, b"");
    client.expect_end();
}

#[test]
fn a_slow_request_is_given_up_however_steadily_it_drips() {
    let limit = Duration::from_secs(1);
    let server = Server::start(&["--request-timeout", "1"]);
    let starts = [
        "GET / HTTP/1.1\r\nPad: ",
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ];
    for start in starts {
        let mut client = server.connect();
        let begun = Instant::now();
        client.send(start);
        while !client.has_input_within(limit / 10) {
            client.send("x");
            assert!(begun.elapsed() < PATIENCE, "each byte renewed the time limit of {start:?}");
        }
        assert!(begun.elapsed() >= limit, "gave up too early");
        client.expect(408, b"");
        client.expect_end();
    }
}

#[test]
fn a_request_that_stops_midway_is_given_up() {
    let server = Server::start(&["--request-timeout", "1"]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost:");
    client.expect(408, b"");
    client.expect_end();
}

#[test]
fn each_request_has_a_time_limit_of_its_own() {
    let limit = Duration::from_secs(3);
    let server = Server::start(&["--request-timeout", &limit.as_secs().to_string()]);
    let mut client = server.connect();
    for pause in [limit + limit / 10, Duration::ZERO] {
        client.begin_request();
        client.send(HELLO);
        client.expect(200, HELLO);
        thread::sleep(pause);
    }
}

#[test]
fn a_client_that_does_not_read_its_answers_is_given_up() {
    let server = Server::start(&["--request-timeout", "1"]);
    let mut client = server.connect();
    let request = post("/echo", &bytes(BODY_LIMIT));
    let begun = Instant::now();
    // More than the buffers of both sides can hold, so that the server's writes come to a halt.
    let error = loop {
        if let Err(error) = client.stream.write_all(&request) {
            break error;
        }
        assert!(begun.elapsed() < PATIENCE, "the server takes all and sends nothing");
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn bad_connections_do_not_disturb_a_good_one() {
    let server = Server::start(&[]);
    let mut good = server.connect();
    let mut begun = server.connect();
    begun.begin_request();

    let stuck = server.connect(); // says nothing
    let mut slow = server.connect();
    slow.send("GET / HT");
    for bad in ["garbage\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
        server.expect_refusal(bad, 400);
        good.send(GET);
        good.expect(200, HELLO);
    }
    drop(server.connect());
    let mut gone = server.connect();
    gone.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nhalf");
    drop(gone);
    good.send(GET);
    good.expect(200, HELLO);

    begun.send(HELLO);
    begun.expect(200, HELLO);
    drop((slow, stuck));
    good.send(GET);
    good.expect(200, HELLO);
}

// ------------------------------------------------------------------------------------------------
// Scarcity and the end
// ------------------------------------------------------------------------------------------------

#[test]
fn running_out_of_descriptors_is_survived() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(example()).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut shell);

    let mut early = server.connect();
    early.send(GET);
    early.expect(200, HELLO);
    // More than there are descriptors: some wait in the backlog.
    let crowd: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let mut complaint = String::new();
    BufReader::new(server.child.stderr.take().unwrap()).read_line(&mut complaint).unwrap();
    assert!(complaint.contains("cannot accept"), "{complaint}");
    early.send(GET);
    early.expect(200, HELLO);

    drop(crowd);
    let mut late = server.connect();
    late.send(GET);
    late.expect(200, HELLO);
    drop((early, late));
    server.end(Signal::SIGTERM);
}

#[test]
fn the_end_answers_requests_in_flight_and_closes_idle_connections() {
    let mut server = Server::start(&[]);
    let mut busy = server.connect();
    busy.begin_request();
    let fresh = server.connect();
    let mut idle = server.connect();
    idle.send(GET);
    idle.expect(200, HELLO);

    server.signal(Signal::SIGTERM);
    idle.expect_end();
    fresh.expect_end();
    server.expect_no_more_connections();
    busy.send(HELLO);
    assert_eq!(busy.expect(200, HELLO).field("Connection"), Some("close"));
    busy.expect_end();

    let output = server.exit();
    assert_eq!(counter(&output, "connections_accepted"), 3, "{output}");
    assert_eq!(counter(&output, "requests_served"), 2, "{output}");
}

#[test]
fn the_end_does_not_lose_pipelined_requests() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    client.begin_request();
    server.signal(Signal::SIGTERM);
    server.expect_no_more_connections();
    client.send([HELLO, GET.as_bytes(), GET.as_bytes()].concat());
    client.expect(200, HELLO);
    client.expect(200, HELLO);
    assert_eq!(client.expect(200, HELLO).field("Connection"), Some("close"));
    client.expect_end();
    server.exit();
}

#[test]
fn the_end_does_not_wait_long_for_a_request_that_never_completes() {
    let mut server = Server::start(&["--request-timeout", "3600"]);
    let mut client = server.connect();
    client.begin_request();
    server.end(Signal::SIGTERM);
}

#[test]
fn an_interrupt_ends_a_server_without_clients() {
    let output = Server::start(&[]).end(Signal::SIGINT);
    assert_eq!(counter(&output, "connections_accepted"), 0, "{output}");
    assert_eq!(counter(&output, "requests_served"), 0, "{output}");
}

// ------------------------------------------------------------------------------------------------
// Requests
// ------------------------------------------------------------------------------------------------

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// `chunks` are sent as they are.
fn post_chunked(chunks: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
        .into_bytes()
}

/// Bytes of all values, in an order whose period is no power of two, so that a displaced block
/// shows.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % 251) as u8).collect()
}

// ------------------------------------------------------------------------------------------------
// The server's process
// ------------------------------------------------------------------------------------------------

/// Where cargo puts examples, seen from where it puts tests: beside the folder of this executable.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let example = profile.join("examples/http");
    assert!(example.exists(), "{} is missing: cargo build --example http", example.display());
    example
}

/// A running server, killed when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    output: Option<JoinHandle<io::Result<String>>>,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        Server::spawn(Command::new(example()).args(args))
    }

    fn spawn(command: &mut Command) -> Server {
        let mut child =
            command.args(["--addr", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        let output = thread::spawn(move || collect(stdout, &tell));
        // Complete before the wait for the first line, so that a failure there kills the child too.
        let mut server =
            Server { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)), output: Some(output) };
        let line = told.recv_timeout(PATIENCE).expect("the server listens");
        server.addr =
            line.trim().strip_prefix("listening on ").expect("an address").parse().unwrap();
        server
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// Sends `request` on a connection of its own, which must be refused with `status` and closed.
    fn expect_refusal(&self, request: impl AsRef<[u8]>, status: u16) {
        let request = request.as_ref();
        let mut client = self.connect();
        client.send(request);
        let response = client.response();
        let start = String::from_utf8_lossy(&request[..request.len().min(200)]);
        assert_eq!(
            (response.status, response.field("Connection")),
            (status, Some("close")),
            "{start:?}"
        );
        client.expect_end();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until connections are refused: the server has noticed that it shall stop.
    fn expect_no_more_connections(&self) {
        let begun = Instant::now();
        while TcpStream::connect(self.addr).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the server accepts on");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the process to end well; returns what it wrote after the first line.
    fn exit(&mut self) -> String {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}");
        self.output.take().expect("the first exit").join().unwrap().unwrap()
    }

    fn end(&mut self, signal: Signal) -> String {
        self.signal(signal);
        self.exit()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the first line at once and returns the others at the end, reading on so that the child
/// never blocks.
fn collect(mut stdout: BufReader<ChildStdout>, first: &mpsc::Sender<String>) -> io::Result<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let _ = first.send(line);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest)?;
    Ok(rest)
}

/// The value of a counter in the server's last words.
fn counter(output: &str, name: &str) -> u64 {
    let line = output.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().unwrap()
}

// ------------------------------------------------------------------------------------------------
// A client
// ------------------------------------------------------------------------------------------------

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request but for its body, [`HELLO`], and makes sure that the server has begun with
    /// it.
    fn begin_request(&mut self) {
        let fields =
            format!("Host: test\r\nContent-Length: {}\r\nExpect: 100-continue", HELLO.len());
        self.send(format!("POST /echo HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(self.response_head().status, 100);
    }

    /// Receives a response, which must be this one.
    fn expect(&mut self, status: u16, body: &[u8]) -> Response {
        let response = self.response();
        assert_eq!(response.status, status, "{}", response.head);
        assert!(response.body == body, "{} bytes instead of {}", response.body.len(), body.len());
        response
    }

    fn response(&mut self) -> Response {
        let mut response = self.response_head();
        let length = response.field("Content-Length").expect("a length").parse().unwrap();
        response.body = self.take(length);
        response
    }

    fn response_head(&mut self) -> Response {
        const END: &[u8] = b"\r\n\r\n";
        let length = loop {
            if let Some(at) = self.received.windows(END.len()).position(|window| window == END) {
                break at + END.len();
            }
            assert_ne!(self.receive(), 0, "closed instead of answered");
        };
        let head = String::from_utf8(self.take(length)).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
        Response { status, head, body: Vec::new() }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert_ne!(self.receive(), 0, "closed in the midst of a response");
        }
        self.received.drain(..count).collect()
    }

    fn receive(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).expect("neither a reset nor silence");
        self.received.extend(&buffer[..count]);
        count
    }

    /// The server must close the connection, properly and without another byte.
    fn expect_end(mut self) {
        let count = self.receive();
        assert!(
            count == 0 && self.received.is_empty(),
            "{:?}",
            String::from_utf8_lossy(&self.received)
        );
    }

    fn has_input_within(&self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match peeked {
            Ok(_) => true,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{error}"
                );
                false
            }
        }
    }
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
