//! What connections run on, and how their server ends.

#[allow(dead_code, reason = "other tests use more of it")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use uthread::{Group, Runtime};
use uthread_httpd::{GreenThreads, Limits, Request, Response, Status};

use common::{ALL, CONCURRENT, GET, Kind, PATIENCE, Running, wait_until};

/// A handler that waits until so many of its requests are under way.
fn meeting(of: usize) -> impl Fn(&Request<'_>) -> Response<'static> {
    let present = AtomicUsize::new(0);
    move |_| {
        present.fetch_add(1, SeqCst);
        let begun = Instant::now();
        while present.load(SeqCst) < of {
            assert!(begun.elapsed() < PATIENCE, "alone");
            uthread::sleep(Duration::from_millis(1));
        }
        Response::text(Status::OK, "met")
    }
}

#[test]
fn requests_on_several_connections_are_under_way_at_once() {
    for kind in CONCURRENT {
        let running = Running::start(kind, Limits::default(), meeting(50));
        let mut clients: Vec<_> = (0..50).map(|_| running.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(GET));
        clients.iter_mut().for_each(|client| assert_eq!(client.expect(200).text(), "met"));
    }
}

#[test]
fn in_place_one_connection_is_served_after_the_other_and_then_closed() {
    let under_way = AtomicUsize::new(0);
    let running = Running::start(Kind::InPlace, Limits::default(), move |_: &Request<'_>| {
        assert_eq!(under_way.fetch_add(1, SeqCst), 0);
        std::thread::sleep(Duration::from_millis(1));
        under_way.fetch_sub(1, SeqCst);
        Response::text(Status::OK, "alone")
    });
    let mut clients: Vec<_> = (0..20).map(|_| running.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    for mut client in clients {
        assert_eq!(client.expect(200).field("Connection"), Some("close"));
        client.expect_end();
    }
}

#[test]
fn green_threads_are_in_the_group_and_runtime_that_were_named() {
    let runtime = Arc::new(Runtime::builder().workers(1).build().unwrap());
    let group = Group::builder().name("requests").build().unwrap();
    let threads = GreenThreads::new().runtime(&runtime).group(&group).stack_size(128 << 10);
    let mut running = Running::start_on(threads, Limits::default(), |_: &Request<'_>| {
        Response::text(Status::OK, Group::current().name())
    });
    let mut client = running.connect();
    client.send(GET);
    assert_eq!(client.expect(200).text(), "requests");
    drop(client);
    running.stop();
    assert!(runtime.group_stats(&group).turns > 0, "it ran elsewhere");
}

#[test]
fn the_end_answers_requests_under_way_and_closes_idle_connections() {
    for kind in CONCURRENT {
        let limits = Limits { drain: PATIENCE, ..Limits::default() };
        let mut running =
            Running::start(kind, limits, |_: &Request<'_>| Response::text(Status::OK, "last"));
        let mut busy = running.connect();
        busy.begin_request();
        let mut idle = running.connect();
        idle.send(GET);
        idle.expect(200);
        let silent = running.connect();
        wait_until("it is accepted", || running.server.accepted() == 3);
        running.server.stop();
        idle.expect_end();
        silent.expect_end();
        busy.send("12345");
        assert_eq!(busy.expect(200).field("Connection"), Some("close"));
        busy.expect_end();
        running.join();
        assert_eq!((running.server.accepted(), running.server.served()), (3, 2), "{kind:?}");
    }
}

#[test]
fn the_end_does_not_wait_longer_than_it_is_told_to() {
    for kind in CONCURRENT {
        let drain = Duration::from_millis(50);
        let limits = Limits { drain, request: PATIENCE * 2, ..Limits::default() };
        let mut running =
            Running::start(kind, limits, |_: &Request<'_>| Response::text(Status::OK, "never"));
        let mut client = running.connect();
        client.begin_request();
        let begun = Instant::now();
        running.stop();
        assert!(begun.elapsed() >= drain, "{kind:?}: it did not wait");
        client.expect_end();
    }
}

#[test]
fn the_end_finds_servers_that_have_no_room() {
    for kind in CONCURRENT {
        let limits = Limits { connections: Some(1), ..Limits::default() };
        let mut running =
            Running::start(kind, limits, |_: &Request<'_>| Response::text(Status::OK, "last"));
        let mut busy = running.connect();
        busy.begin_request();
        running.server.stop();
        busy.send("12345");
        busy.expect(200);
        running.join();
    }
}

#[test]
fn stopping_ends_a_connection_that_is_idle_in_place() {
    let mut running = Running::start(Kind::InPlace, Limits::default(), |_: &Request<'_>| {
        Response::text(Status::OK, "never")
    });
    let silent = running.connect();
    wait_until("it is accepted", || running.server.accepted() == 1);
    running.stop();
    silent.expect_end();
}

#[test]
fn stopping_twice_or_before_the_beginning_is_no_mistake() {
    for kind in ALL {
        let called = Arc::new(AtomicBool::new(false));
        let calls = called.clone();
        let mut running = Running::start(kind, Limits::default(), move |_: &Request<'_>| {
            calls.store(true, SeqCst);
            Response::empty(Status::OK)
        });
        running.server.stop();
        running.stop();
        assert!(!called.load(SeqCst));
    }
}
