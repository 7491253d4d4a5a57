//! Descriptors run out. Alone in its process, whose limit it changes.

#[allow(dead_code, reason = "other tests use more of it")]
mod common;

use std::fs::File;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uthread_httpd::{Limits, Request, Response, Status};

use common::{CONCURRENT, GET, Running};

#[test]
fn without_descriptors_idle_connections_make_room() {
    for kind in CONCURRENT {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
        let running = Running::start(kind, Limits::default(), |_: &Request<'_>| {
            Response::text(Status::OK, "hello")
        });
        let mut busy = running.connect();
        busy.begin_request();
        let mut idle = running.connect();
        idle.send(GET);
        idle.expect(200);

        let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        files.pop(); // for the client's side
        let mut late = running.connect();
        assert!(File::open("/dev/null").is_err(), "there is none for the server's side");
        late.send(GET);
        late.expect(200);
        idle.expect_end();
        busy.send("12345");
        busy.expect(200);
        drop(files);
        drop((busy, late));
        drop(running);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
}
