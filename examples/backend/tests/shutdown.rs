//! The end: nothing that was promised is lost.

mod harness;

use std::net::TcpStream;

use harness::{Api, Backend};
use nix::sys::signal::Signal;

const ORDER: &str = r#"{"item":7,"quantity":2,"customer":"Ada"}"#;

#[test]
fn requests_under_way_are_answered_before_the_end() {
    let api = Api::start();
    api.set("fault", "hang");
    let backend = Backend::start_with(&api, &[]);
    let orders: Vec<_> = (0..5)
        .map(|_| {
            let client = backend.client.clone();
            std::thread::spawn(move || client.post("/orders", ORDER))
        })
        .collect();
    backend.await_sample("under_way", 5);
    backend.signal(Signal::SIGTERM);
    // The end has begun when nobody is let in any more.
    while TcpStream::connect(backend.address()).is_ok() {
        std::thread::yield_now();
    }
    api.set("fault", "none");
    for order in orders {
        assert_eq!(order.join().unwrap().status, 201);
    }
    let ended = backend.ended();
    assert_eq!(ended.counter("requests_cut_off"), 0);
    assert_eq!(ended.log.matches("route=\"/orders\" status=201").count(), 5);
    assert_eq!(ended.log.lines().count() as u64, ended.counter("log_lines_written"));
}

#[test]
fn requests_that_take_longer_than_the_drain_are_cut_off_and_counted() {
    let api = Api::start();
    api.set("fault", "hang");
    let backend = Backend::start_with(&api, &["--drain-timeout", "1", "--api-timeout", "1500"]);
    let client = backend.client.clone();
    let order = std::thread::spawn(move || client.try_post("/orders", ORDER));
    backend.await_sample("under_way", 1);
    let ended = backend.end();
    assert!(order.join().unwrap().is_none(), "there was no answer");
    assert_eq!(ended.counter("requests_cut_off"), 1);
}

#[test]
fn jobs_in_the_queue_are_done_before_the_end() {
    let backend = Backend::start(&["--job-workers", "1"]);
    for _ in 0..50 {
        let job = r#"{"kind":"thumbnail","picture":1,"width":100}"#;
        assert_eq!(backend.client.post("/jobs", job).status, 202);
    }
    let ended = backend.end();
    assert_eq!((ended.counter("jobs_done"), ended.counter("jobs_left")), (50, 0));
}

#[test]
fn the_external_api_ends_with_the_service() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let backend = Backend::start(&[]);
        assert_eq!(backend.client.post("/orders", ORDER).status, 201);
        backend.signal(signal);
        let ended = backend.ended();
        TcpStream::connect(ended.api_address()).expect_err("nobody is there");
    }
}

#[test]
fn a_start_that_fails_ends_with_a_reason_and_leaves_nothing_behind() {
    let first = Backend::start(&[]);
    let second = harness::failure(&["--addr", first.address()]);
    assert!(second.contains("in use"), "{second}");
    let nowhere = "postgresql://postgres@127.0.0.1:1/postgres";
    let third = harness::failure(&["--addr", "127.0.0.1:0", "--database", nowhere]);
    assert!(third.contains("database"), "{third}");
}
