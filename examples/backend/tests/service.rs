//! What every route answers, on both databases.

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Answer, Api, Backend, Client};
use postgres::NoTls;
use serde_json::json;
use uthread_backend::work::sample_picture;
use uthread_software::program::Postgres;

/// More than the backend's own.
const CONNECTIONS: usize = 20;

fn order(item: i64, customer: &str) -> String {
    json!({ "item": item, "quantity": 2, "customer": customer }).to_string()
}

fn credentials(name: &str, password: &str) -> String {
    json!({ "name": name, "password": password }).to_string()
}

/// Waits until a job is no longer in the queue or being done.
fn outcome(client: &Client, submitted: &Answer) -> serde_json::Value {
    assert_eq!(submitted.status, 202);
    let number = &submitted.json()["job"];
    loop {
        let job = client.get(&format!("/jobs/{number}")).json();
        if job["state"] != "queued" && job["state"] != "running" {
            return job;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

// ------------------------------------------------------------------------------------------------
// On each database
// ------------------------------------------------------------------------------------------------

fn every_route_answers(database: &[&str]) {
    let backend = Backend::start(database);
    let client = &backend.client;
    items_and_orders(client);
    users(client);
    images_and_jobs(client);
    operators(&backend);
    let ended = backend.end();
    assert_eq!(ended.counter("requests_cut_off"), 0);
    assert_eq!(ended.counter("log_lines_dropped"), 0);
    assert_eq!(ended.counter("log_lines_written"), ended.log.lines().count() as u64);
    assert!(ended.log.contains("route=\"/orders\" status=201"), "{}", ended.log);
}

fn items_and_orders(client: &Client) {
    let item = client.get("/items/7").json();
    assert_eq!((&item["id"], &item["name"]), (&json!(7), &json!("item 7")));
    assert_eq!(client.get("/items/7000").status, 404);
    assert_eq!(client.get("/items/seven").status, 404);
    assert_eq!(client.get("/nothing").status, 404);
    assert_eq!(client.get("/orders").status, 405);

    let answer = client.post("/orders", order(7, "Ada"));
    assert_eq!(answer.status, 201);
    let placed = answer.json();
    assert_eq!((&placed["item"], &placed["customer"]), (&json!(7), &json!("Ada")));
    assert_eq!(client.get(&format!("/orders/{}", placed["order"])).json(), placed);
    assert_eq!(client.get("/orders/7000").status, 404);
    let other = client.post("/orders", order(7, "Bob")).json();
    assert_ne!(other["receipt"], placed["receipt"]);

    assert_eq!(client.refusal("/orders", order(7000, "Ada")).0, 404);
    let (status, why) = client.refusal("/orders", "{\n  \"item\": }");
    assert_eq!((status, why.contains("line 2 column 11")), (400, true), "{why}");
    let (status, why) = client.refusal("/orders", b"\xff\xfe");
    assert_eq!((status, why.contains("line 1 column 1")), (400, true), "{why}");
    assert_eq!(client.refusal("/orders", "").0, 400);
    assert_eq!(client.refusal("/orders", "[".repeat(100_000)).0, 400);
    assert_eq!(client.refusal("/orders", order(7, "")).0, 400);
}

fn users(client: &Client) {
    let good = credentials("ada", "correct horse");
    assert_eq!(client.post("/register", &good).status, 201);
    assert_eq!(client.refusal("/register", &good).0, 409);
    assert_eq!(client.post("/login", &good).status, 200);
    assert_eq!(client.refusal("/login", credentials("ada", "battery staple")).0, 403);
    assert_eq!(client.refusal("/login", credentials("nobody", "correct horse")).0, 403);
    assert_eq!(client.refusal("/register", credentials("", "correct horse")).0, 400);
    let (status, why) = client.refusal("/register", credentials("bob", "short"));
    assert_eq!((status, why.starts_with("password")), (400, true), "{why}");
}

fn images_and_jobs(client: &Client) {
    let picture = sample_picture(300, 200, 1);
    let small = client.post("/thumbnail?width=30", &picture);
    assert_eq!((small.status, &*small.content_type), (200, "image/jpeg"));
    assert!(small.body.starts_with(b"\xff\xd8"));
    assert_eq!(client.refusal("/thumbnail", b"no image").0, 400);
    assert_eq!(client.refusal("/thumbnail", &picture[..picture.len() / 2]).0, 400);
    let (status, why) = client.refusal("/thumbnail?width=wide", &picture);
    assert_eq!((status, why.starts_with("width")), (400, true), "{why}");

    let report = outcome(client, &client.post("/jobs", r#"{"kind":"report"}"#));
    let product = client.get(report["product"].as_str().unwrap()).json();
    assert_eq!((&product["orders"], &product["items"]), (&json!(2), &json!(1)));
    let job = json!({ "kind": "thumbnail", "picture": 1, "width": 30 }).to_string();
    let thumbnail = outcome(client, &client.post("/jobs", job));
    let product = client.get(thumbnail["product"].as_str().unwrap());
    assert_eq!(
        (&*product.content_type, product.body.starts_with(b"\xff\xd8")),
        ("image/jpeg", true)
    );
    let job = json!({ "kind": "thumbnail", "picture": 99, "width": 30 }).to_string();
    let failed = outcome(client, &client.post("/jobs", job));
    assert_eq!(failed["state"], "failed");
    assert_eq!(client.get(&format!("/jobs/{}/product", failed["job"])).status, 409);
    assert_eq!(client.get("/jobs/7000").status, 404);
    assert_eq!(client.refusal("/jobs", r#"{"kind":"nap"}"#).0, 400);
}

fn operators(backend: &Backend) {
    assert_eq!(backend.client.get("/health").json()["status"], "ok");
    let metrics = String::from_utf8(backend.client.get("/metrics").body).unwrap();
    for line in [
        "backend_requests_total{route=\"/orders\",status=\"201\"} 2\n",
        "backend_shed_total 0\n",
        "uthread_spawned_total ",
    ] {
        assert!(metrics.contains(line), "{line} {metrics}");
    }
    for group in ["requests", "images", "jobs", "logging", "telemetry"] {
        assert!(metrics.contains(&format!("group=\"{group}\"")), "{group} {metrics}");
    }
    let sample = backend.sample();
    assert_eq!((&sample["shed"], &sample["queued"]), (&json!(0), &json!(0)));
    let samples = backend.client.get("/telemetry?samples=2").json();
    assert_eq!(samples.as_array().unwrap().len(), 2);
}

#[test]
fn every_route_answers_with_sqlite() {
    every_route_answers(&[]);
}

#[test]
fn every_route_answers_with_postgresql() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    every_route_answers(&["--database", &server.url()]);
}

#[test]
fn what_was_ordered_is_there_after_a_restart() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    let url = server.url();
    let first = Backend::start(&["--database", &url]);
    let placed = first.client.post("/orders", order(3, "Ada")).json();
    first.end();
    let second = Backend::start(&["--database", &url]);
    assert_eq!(second.client.get(&format!("/orders/{}", placed["order"])).json(), placed);
}

// ------------------------------------------------------------------------------------------------
// When a database or the API is out of order
// ------------------------------------------------------------------------------------------------

#[test]
fn connections_that_the_database_closes_are_replaced_unnoticed() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    let backend = Backend::start(&["--database", &server.url()]);
    assert_eq!(backend.client.get("/items/7").status, 200);
    let mut operator = postgres::Client::connect(&server.url(), NoTls).unwrap();
    let close = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                 WHERE application_name = 'uthread-backend'";
    assert!(operator.query_one(close, &[]).unwrap().get::<_, i64>(0) > 0);
    assert_eq!(backend.client.get("/items/7").status, 200);
    assert_eq!(backend.client.post("/orders", order(7, "Ada")).status, 201);
}

#[test]
fn without_its_database_the_service_tells_to_come_back() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    let backend = Backend::start(&["--database", &server.url()]);
    drop(server);
    for target in ["/items/7", "/orders/1", "/health"] {
        let answer = backend.client.get(target);
        assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{target}");
    }
    let answer = backend.client.post("/orders", order(7, "Ada"));
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")));
    let ended = backend.end();
    assert!(ended.log.contains("WARN"), "{}", ended.log);
}

#[test]
fn whatever_the_api_does_the_service_answers_and_recovers() {
    let api = Api::start();
    let backend = Backend::start_with(&api, &["--api-timeout", "200"]);
    let client = &backend.client;
    for (fault, status) in [("error", 502), ("nonsense", 502), ("reset", 502), ("hang", 504)] {
        api.set("fault", fault);
        assert_eq!(client.refusal("/orders", order(7, "Ada")).0, status, "{fault}");
        api.set("fault", "none");
        assert_eq!(client.post("/orders", order(7, "Ada")).status, 201, "after {fault}");
    }
    api.set("latency", "1000-1000");
    assert_eq!(client.refusal("/orders", order(7, "Ada")).0, 504);
    drop(api);
    assert_eq!(client.refusal("/orders", order(7, "Ada")).0, 502);
    assert_eq!(client.get("/items/7").status, 200);
}

// ------------------------------------------------------------------------------------------------
// Limits
// ------------------------------------------------------------------------------------------------

#[test]
fn past_the_stated_number_of_requests_under_way_others_are_told_to_come_back() {
    let api = Api::start();
    api.set("fault", "hang");
    let backend = Backend::start_with(&api, &["--under-way", "1"]);
    let client = backend.client.clone();
    let first = std::thread::spawn(move || client.post("/orders", order(7, "Ada")));
    backend.await_sample("under_way", 1);
    let shed = backend.client.get("/items/7");
    assert_eq!((shed.status, shed.retry_after.as_deref()), (503, Some("1")));
    assert_eq!(backend.client.get("/health").status, 200);
    api.set("fault", "none");
    assert_eq!(first.join().unwrap().status, 201);
    assert_eq!(backend.client.get("/items/7").status, 200);
    assert_eq!(backend.end().counter("requests_shed"), 1);
}

#[test]
fn a_full_queue_takes_no_jobs() {
    let backend = Backend::start(&["--job-queue", "0"]);
    let answer = backend.client.post("/jobs", r#"{"kind":"report"}"#);
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")));
}

#[test]
fn bodies_and_heads_beyond_their_limits_are_refused() {
    let backend = Backend::start(&["--body-limit", "1000", "--head-limit", "1000"]);
    let status = |request: String| {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let post = "POST /orders HTTP/1.1\r\nHost: test\r\n";
    assert_eq!(status(format!("{post}Content-Length: 1001\r\n\r\n")), "413");
    assert_eq!(status(format!("{post}X: {}\r\n\r\n", "x".repeat(1000))), "431");
    assert_eq!(status(format!("{post}nonsense\r\n\r\n")), "400");
    assert_eq!(backend.client.get("/items/7").status, 200);
}
