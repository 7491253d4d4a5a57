//! What the service needs fails, under a load of checked requests: each is answered, well or by the error that is stated for
//! it, and all is well again when what failed is.

mod harness;

use harness::load::{Load, Order, Terms};
use harness::wire::Wire;
use harness::{Api, Backend, PATIENT};
use nix::sys::signal::Signal;
use postgres::NoTls;
use serde_json::Value;
use uthread_software::program::Postgres;

/// Answers before, while or after something fails.
const SOME: u64 = 20;
/// So where each takes a while.
const FEW: u64 = 8;
/// When to give up on a database, in milliseconds: a busy machine starts in that time.
const SOON: &str = "1000";
/// More than the backend's own.
const CONNECTIONS: usize = 40;

/// Whatever needs the database, while there is none.
const NO_DATABASE: Terms = Terms { orders: &[503], others: &[503], end: false };

/// That whatever was placed is there, unchanged; how often that took to be asked.
fn are_kept(backend: &Backend, orders: &[Value]) -> u64 {
    let mut asked = 0;
    for placed in orders {
        let ask = || {
            asked += 1;
            backend.client.get(&format!("/orders/{}", placed["order"]))
        };
        // A busy machine may take longer than a test allows for.
        let answer = std::iter::repeat_with(ask).take(100).find(|answer| answer.status != 503);
        assert_eq!(answer.expect("a good answer").json(), *placed);
    }
    asked
}

// ------------------------------------------------------------------------------------------------
// The API
// ------------------------------------------------------------------------------------------------

#[test]
fn whatever_the_api_does_all_are_answered_and_orders_are_taken_again_afterwards() {
    let mut api = Api::start();
    let backend = Backend::start_with(&api, &["--api-timeout", "200"]);
    let load = Load::start(backend.address(), Terms { orders: &[502, 504], ..Terms::default() });
    let await_failures = |status| {
        load.await_more(SOME, |seen| seen.of(status));
        load.await_more(SOME, |seen| seen.of(200));
    };
    for (fault, status) in [("error", 502), ("nonsense", 502), ("reset", 502), ("hang", 504)] {
        load.await_good(SOME);
        api.set("fault", fault);
        await_failures(status);
        api.set("fault", "none");
    }
    load.await_good(SOME);
    api.kill();
    await_failures(502);
    api.restart();
    load.await_good(SOME);
    let seen = load.finish();
    let asked = are_kept(&backend, &seen.orders);
    assert_eq!(backend.end().counter("requests_answered"), seen.all() + asked);
}

#[test]
fn hundreds_of_orders_that_wait_for_the_api_keep_nobody_else_waiting() {
    const WAITING: usize = 500;
    let api = Api::start();
    api.set("fault", "hang");
    let backend = Backend::start_with(&api, &PATIENT);
    let waiting: Vec<_> = (0..WAITING)
        .map(|number| {
            let customer = format!("{number} of many");
            let order = Order { item: number + 1, quantity: 1, customer };
            let mut wire = Wire::connect(backend.address()).unwrap();
            wire.send(&order.request());
            (order, wire)
        })
        .collect();
    backend.await_sample("under_way", WAITING as u64);
    for item in 1..=100 {
        assert_eq!(backend.client.get(&format!("/items/{item}")).json()["id"], item);
    }
    api.set("fault", "none");
    let answered = waiting.into_iter().map(|(order, mut wire)| {
        let answer = wire.answer().expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        order.placed(&answer)
    });
    are_kept(&backend, &answered.collect::<Vec<_>>());
    backend.end();
}

// ------------------------------------------------------------------------------------------------
// The database
// ------------------------------------------------------------------------------------------------

#[test]
fn orders_outlive_a_database_that_is_killed_and_started_again() {
    let Some(mut server) = Postgres::start(CONNECTIONS) else { return };
    let backend = Backend::start_on(&server, &[]);
    let load = Load::start(backend.address(), NO_DATABASE);
    for signal in [Signal::SIGQUIT, Signal::SIGKILL] {
        load.await_good(SOME);
        server.kill(signal);
        load.await_more(SOME, |seen| seen.of(503));
        server.restart();
    }
    load.await_good(SOME);
    let seen = load.finish();
    let asked = are_kept(&backend, &seen.orders);
    // Those whose clients were told to come back may have been placed, once.
    let mut operator = postgres::Client::connect(&server.url(), NoTls).unwrap();
    let row = operator.query_one("SELECT count(*) FROM orders", &[]).unwrap();
    let (kept, placed) = (row.get::<_, i64>(0) as u64, seen.orders.len() as u64);
    assert!((placed..=placed + seen.of(503)).contains(&kept), "{kept} of {placed}");
    assert_eq!(backend.end().counter("requests_answered"), seen.all() + asked);
}

#[test]
fn a_database_that_is_frozen_keeps_nobody_for_ever() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    let backend = Backend::start_on(&server, &["--database-timeout", SOON]);
    let load = Load::start(backend.address(), NO_DATABASE);
    load.await_good(SOME);
    let frozen = server.freeze();
    load.await_more(FEW, |seen| seen.of(503));
    drop(frozen);
    load.await_good(SOME);
    let seen = load.finish();
    are_kept(&backend, &seen.orders);
    let log = backend.end().log;
    assert!(log.contains("timed out"), "{log}");
}

#[test]
fn while_an_operator_locks_a_table_those_who_need_it_are_refused_and_others_are_served() {
    let Some(server) = Postgres::start(CONNECTIONS) else { return };
    let backend = Backend::start_on(&server, &["--database-timeout", SOON]);
    let load = Load::start(backend.address(), NO_DATABASE);
    load.await_good(SOME);
    let mut operator = postgres::Client::connect(&server.url(), NoTls).unwrap();
    let mut locking = operator.transaction().unwrap();
    locking.batch_execute("LOCK TABLE orders").unwrap();
    load.await_more(FEW, |seen| seen.of(503));
    load.await_more(SOME, |seen| seen.of(200));
    locking.commit().unwrap();
    load.await_good(SOME);
    let seen = load.finish();
    are_kept(&backend, &seen.orders);
    // The server, too, gave up.
    let log = backend.end().log;
    assert!(log.contains("due to statement timeout"), "{log}");
}

#[test]
fn while_another_process_writes_to_the_file_orders_are_refused_and_readers_are_served() {
    let backend = Backend::start(&["--database-timeout", SOON]);
    let load = Load::start(backend.address(), Terms { orders: &[503], ..Terms::default() });
    load.await_good(SOME);
    let mut other =
        rusqlite::Connection::open(backend.directory.path().join("backend.db")).unwrap();
    other.busy_timeout(harness::PATIENCE).unwrap();
    let exclusive = rusqlite::TransactionBehavior::Immediate;
    let writing = other.transaction_with_behavior(exclusive).unwrap();
    load.await_more(FEW, |seen| seen.of(503));
    load.await_more(SOME, |seen| seen.of(200));
    writing.commit().unwrap();
    load.await_good(SOME);
    let seen = load.finish();
    are_kept(&backend, &seen.orders);
    backend.end();
}
