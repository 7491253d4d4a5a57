//! Nothing is lost and nothing mixed up, whatever happens to the service: under a small load of checked requests.

mod harness;

use std::time::{Duration, Instant};

use harness::Backend;
use harness::load::{Load, Terms};
use harness::wire::{self, Wire};
use nix::sys::signal::Signal;
use uthread_backend::work::{sample_picture, thumbnail};

/// Good answers to each client before, while or after something happens.
const SOME: u64 = 20;

#[test]
fn at_the_end_whatever_was_begun_is_answered_and_later_clients_are_refused() {
    let backend = Backend::start(&[]);
    let load = Load::start(backend.address(), Terms { end: true, ..Terms::default() });
    load.await_good(SOME);
    backend.signal(Signal::SIGTERM);
    let seen = load.ended();
    assert!(Wire::connect(backend.address()).is_none());
    let ended = backend.ended();
    // Whatever it did has reached its client.
    assert_eq!(ended.counter("requests_answered"), seen.all());
    assert_eq!(ended.log.matches("route=\"/orders\" status=201").count() as u64, seen.of(201));
    assert_eq!(ended.counter("requests_cut_off"), 0);
    assert_eq!(ended.counter("log_lines_dropped"), 0);
}

// ------------------------------------------------------------------------------------------------
// Clients
// ------------------------------------------------------------------------------------------------

#[test]
fn hundreds_who_send_a_byte_now_and_then_are_ended_and_keep_nobody_waiting() {
    const SLOW: usize = 300;
    let time = Duration::from_secs(1);
    let backend = Backend::start(&["--request-timeout", &time.as_millis().to_string()]);
    let load = Load::start(backend.address(), Terms::default());
    let mut slow: Vec<_> = (0..SLOW).map(|_| Wire::connect(backend.address()).unwrap()).collect();
    let began = Instant::now();
    for (number, wire) in slow.iter_mut().enumerate() {
        // Half of them within the head, half within the body.
        let end = if number % 2 == 0 { "X: " } else { "Content-Length: 1000\r\n\r\n" };
        wire.send(format!("POST /orders HTTP/1.1\r\nHost: test\r\n{end}").as_bytes());
    }
    while began.elapsed() < time * 9 / 10 {
        slow.iter_mut().for_each(|wire| wire.send(b"x"));
        load.await_good(1);
    }
    for wire in &mut slow {
        assert_eq!(wire.answer().expect("an answer").status, 408);
    }
    assert!(began.elapsed() >= time);
    load.await_good(SOME);
    let seen = load.finish();
    drop(slow);
    assert_eq!(backend.end().counter("requests_answered"), seen.all());
}

#[test]
fn malformed_and_oversized_requests_are_refused_among_good_ones() {
    const BODY: usize = 100_000;
    let backend = Backend::start(&["--body-limit", &BODY.to_string(), "--head-limit", "1000"]);
    let load = Load::start(backend.address(), Terms::default());
    let bad = bad_requests(BODY);
    for _ in 0..5 {
        for (status, request) in &bad {
            let mut wire = Wire::connect(backend.address()).unwrap();
            let answer = wire.ask(request).expect("an answer");
            let start = String::from_utf8_lossy(&request[..request.len().min(200)]);
            assert_eq!(answer.status, *status, "{start}");
            // What was understood as a request is no reason to part.
            if !wire.is_over {
                assert_eq!(wire.ask(&wire::get("/items/7")).expect("an answer").status, 200);
            }
        }
        load.await_good(1);
    }
    load.finish();
    backend.end();
}

/// Requests, and the status that each is to be answered with.
fn bad_requests(body_limit: usize) -> Vec<(u16, Vec<u8>)> {
    let picture = sample_picture(100, 100, 1);
    let jpeg = thumbnail(&picture, 100).unwrap();
    // A few bytes that claim billions of pixels: the size is in the segment that begins the frame.
    let frame = jpeg.windows(2).position(|bytes| bytes == b"\xff\xc0").unwrap();
    let huge = [&jpeg[..frame + 5], b"\xff\xff\xff\xff", &jpeg[frame + 9..]].concat();
    let damaged: Vec<u8> = picture.iter().map(|byte| byte.wrapping_mul(3)).collect();
    let noise: Vec<u8> =
        (0..10_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let post = "POST /orders HTTP/1.1\r\nHost: test\r\n";
    let raw = |rest: String| format!("{post}{rest}").into_bytes();
    vec![
        (400, wire::post("/orders", b"{\"item\":7,")),
        (400, wire::post("/orders", b"[]")),
        (400, wire::post("/orders", b"{\"item\":1e400,\"quantity\":1,\"customer\":\"a\"}")),
        (400, wire::post("/orders", b"{\"item\":7,\"quantity\":1,\"customer\":\"\xff\"}")),
        (400, wire::post("/orders", &noise)),
        (400, wire::post("/orders", "[".repeat(body_limit).as_bytes())),
        (400, wire::post("/thumbnail", b"")),
        (400, wire::post("/thumbnail", &noise)),
        (400, wire::post("/thumbnail", &damaged)),
        (400, wire::post("/thumbnail", &picture[..picture.len() - 20])),
        (400, wire::post("/thumbnail", &huge)),
        (413, wire::post("/thumbnail", &vec![0; body_limit + 1])),
        (413, wire::post("/orders", &vec![b' '; body_limit * 50])),
        (413, raw(format!("Content-Length: {}\r\n\r\n", u64::MAX))),
        (413, raw(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body_limit + 1))),
        (431, raw(format!("X: {}\r\n\r\n", "x".repeat(1_000)))),
        (431, raw(format!("X: {}", "x".repeat(1_000_000)))),
        (431, raw("X: x\r\n".repeat(200))),
        (400, raw("Content-Length: -1\r\n\r\n".to_owned())),
        (400, raw("Transfer-Encoding: chunked\r\n\r\nnonsense\r\n".to_owned())),
        (400, noise),
    ]
}
