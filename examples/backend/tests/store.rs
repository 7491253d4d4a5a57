//! The same questions to both databases.

use std::time::Duration;

use uthread_backend::api::{Quote, QuoteAnswer};
use uthread_backend::order::{Placed, Wanted};
use uthread_backend::store::{self, Location, Store};
use uthread_backend::work::Amount;
use uthread_software::program::Postgres;

const THREADS: i64 = 100;
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// What each thread wants, and gets recorded.
fn orders_are_kept(location: &Location) {
    let store = Store::open(location, CONNECTIONS, PATIENCE).unwrap();
    assert_eq!(store.report().unwrap().orders, 0);
    uthread::scope(|s| {
        for i in 1..=THREADS {
            let store = &store;
            s.spawn(move || {
                let item = store.item(i).unwrap().unwrap();
                assert_eq!(item.name, format!("item {i}"));
                let wanted = Wanted { item: i, quantity: 2, customer: format!("customer {i}") };
                let QuoteAnswer { cents, days, .. } = QuoteAnswer::to(i, 2);
                let placed =
                    Placed::new(wanted, item, Quote { cents, days }, Amount { rounds: 10 });
                let order = store.record(&placed).unwrap();
                assert_eq!(store.order(order).unwrap().unwrap(), placed.answer(order));
            });
        }
    });
    let report = store.report().unwrap();
    assert_eq!((report.orders, report.items), (THREADS, THREADS));
    // What is there stays when the database is opened again.
    drop(store);
    let again = Store::open(location, CONNECTIONS, PATIENCE).unwrap();
    assert_eq!(again.report().unwrap(), report);
    other_questions(&again);
}

fn other_questions(store: &Store) {
    store.ping().unwrap();
    assert!(store.item(store::ITEMS).unwrap().is_some());
    assert!(store.item(store::ITEMS + 1).unwrap().is_none());
    assert!(store.order(-1).unwrap().is_none());
    assert!(store.add_user("Ada", "her hash").unwrap());
    assert!(!store.add_user("Ada", "another").unwrap());
    assert_eq!(store.password_hash("Ada").unwrap().as_deref(), Some("her hash"));
    assert_eq!(store.password_hash("ada' OR 1=1 --").unwrap(), None);
    assert!(store.picture(store::PICTURES).unwrap().unwrap().starts_with(b"\x89PNG"));
    assert_eq!(store.picture(store::PICTURES + 1).unwrap(), None);
}

#[test]
fn orders_of_many_threads_are_kept_by_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    orders_are_kept(&Location::Sqlite(directory.path().join("backend.db")));
}

#[test]
fn orders_of_many_threads_are_kept_by_postgresql() {
    let Some(server) = Postgres::start(CONNECTIONS + 3) else { return };
    orders_are_kept(&Location::of(&server.url()));
}

#[test]
fn a_database_that_is_not_there_is_told_at_once() {
    let nowhere = Location::Postgres("postgresql://postgres@127.0.0.1:1/postgres".to_owned());
    let error = Store::open(&nowhere, CONNECTIONS, PATIENCE).unwrap_err();
    assert!(matches!(error, store::Error::Unavailable(_)), "{error}");
    let no_directory = Location::Sqlite("/proc/nowhere/backend.db".into());
    Store::open(&no_directory, CONNECTIONS, PATIENCE).unwrap_err();
}
