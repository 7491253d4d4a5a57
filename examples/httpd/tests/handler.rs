//! What handlers get and give, on each kind of threads.

#[allow(dead_code, reason = "other tests use more of it")]
mod common;

use std::io::{ErrorKind, Read};

use uthread_httpd::{Limits, Request, Response, Status};

use common::{ALL, CONCURRENT, GET, Running};

/// Tells what it was asked, and panics where that is what it was asked for.
fn tell(request: &Request<'_>) -> Response<'static> {
    if request.path == "/panic" {
        panic!("on request");
    }
    if request.path == "/close" {
        return Response::text(Status::OK, "bye").closing();
    }
    if request.path == "/reset" {
        return Response::reset();
    }
    let tag = request.header("x-TAG").map(String::from_utf8_lossy);
    let body = String::from_utf8_lossy(request.body);
    let text = format!("{} {} {:?} {tag:?} {body}", request.method, request.path, request.query);
    Response::text(Status::OK, text)
}

#[test]
fn a_request_comes_with_its_parts() {
    for kind in ALL {
        let running = Running::start(kind, Limits::default(), tell);
        let fields = "Host: test\r\nX-Tag:  one \r\nX-Tag: two";
        let cases = [
            (
                "GET /a%20b?c=d HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
                r#"GET /a%20b Some("c=d") None "#,
            ),
            // The parser allows for empty lines before.
            (
                format!("\r\n\r\nPUT / HTTP/1.1\r\n{fields}\r\nContent-Length: 4\r\n\r\nbody"),
                r#"PUT / None Some("one") body"#,
            ),
            (
                format!(
                    "POST /c HTTP/1.1\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
                ),
                r#"POST /c None Some("one") body"#,
            ),
        ];
        for (request, told) in &cases {
            let mut client = running.connect();
            client.send(request);
            assert_eq!(client.expect(200).text(), *told, "{kind:?}");
            drop(client);
            // Cut anywhere, it is the same request.
            for cut in 1..request.len() {
                let mut client = running.connect();
                client.send(&request[..cut]);
                client.send(&request[cut..]);
                assert_eq!(client.expect(200).text(), *told, "{kind:?}, cut at {cut}");
            }
        }
    }
}

#[test]
fn a_large_body_leaves_the_head_where_it_was() {
    for kind in ALL {
        let running = Running::start(kind, Limits::default(), tell);
        let body = "0123456789".repeat(10_000);
        let mut client = running.connect();
        client.send("POST /big HTTP/1.1\r\nX-Tag: t\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
        for piece in body.as_bytes().chunks(30_000) {
            client.send(piece);
        }
        assert!(client.expect(200).text() == format!(r#"POST /big None Some("t") {body}"#));
    }
}

#[test]
fn head_is_answered_without_the_body() {
    for kind in ALL {
        let running = Running::start(kind, Limits::default(), tell);
        let mut client = running.connect();
        client.send("HEAD /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = client.head();
        assert_eq!((answer.status, answer.field("Content-Length")), (200, Some("18")));
        client.expect_end();
    }
}

#[test]
fn a_panic_is_answered_500_and_ends_its_connection_alone() {
    for kind in ALL {
        let running = Running::start(kind, Limits::default(), tell);
        for _ in 0..3 {
            let request = "GET /panic HTTP/1.1\r\nHost: test\r\n\r\n";
            assert_eq!(running.expect_last(request, 500).text(), "");
        }
        running.connect().get("/");
        let mut client = running.connect();
        client.send(GET);
        client.expect(200);
    }
}

#[test]
fn others_go_on_when_a_handler_panics() {
    for kind in CONCURRENT {
        let running = Running::start(kind, Limits::default(), tell);
        let mut good = running.connect();
        good.send(GET);
        good.expect(200);
        running.expect_last("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n", 500);
        good.send(GET);
        good.expect(200);
    }
}

#[test]
fn a_response_may_end_the_connection() {
    for kind in CONCURRENT {
        let running = Running::start(kind, Limits::default(), tell);
        let mut client = running.connect();
        client.send(GET);
        assert_eq!(client.expect(200).field("Connection"), None);
        client.get("/close");
        assert_eq!(client.expect(200).field("Connection"), Some("close"));
        client.expect_end();
    }
}

#[test]
fn a_response_may_reset_the_connection() {
    for kind in ALL {
        let running = Running::start(kind, Limits::default(), tell);
        let mut client = running.connect();
        client.get("/reset");
        let error = client.stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn load_is_shed_by_the_handler_with_a_time_to_come_back() {
    for kind in ALL {
        let running =
            Running::start(kind, Limits::default(), |_: &Request<'_>| Response::unavailable(7));
        let mut client = running.connect();
        client.send(GET);
        assert_eq!(client.expect(503).field("Retry-After"), Some("7"));
    }
}
