//! Nothing is lost and nothing mixed up, whatever happens to the service: under a small load of checked requests.

mod harness;

use harness::Backend;
use harness::load::{Load, Terms};
use harness::wire::Wire;
use nix::sys::signal::Signal;

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
