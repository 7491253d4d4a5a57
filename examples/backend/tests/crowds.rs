//! As many clients at once as there can be, and more than there is room for.

mod harness;

use std::time::{Duration, Instant};

use harness::load::{Load, Order, Terms};
use harness::wire::{self, Wire};
use harness::{Api, Backend, LONG, PATIENCE, PATIENT};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

/// Good answers to each client before, while or after something happens.
const SOME: u64 = 20;

// ------------------------------------------------------------------------------------------------
// Many
// ------------------------------------------------------------------------------------------------

/// One of many clients: every fourth has placed an order, or is to.
struct Member {
    number: usize,
    wire: Wire,
    placed: Option<Value>,
}

impl Member {
    fn connect(backend: &Backend, number: usize) -> Member {
        let wire = Wire::connect(backend.address()).expect("nobody is refused");
        Member { number, wire, placed: None }
    }

    fn order(&self) -> Option<Order> {
        let customer = format!("{} of many", self.number);
        let order = Order { item: self.item(), quantity: self.number % 7 + 1, customer };
        self.number.is_multiple_of(4).then_some(order)
    }

    fn item(&self) -> usize {
        self.number % 1_000 + 1
    }

    fn send(&mut self) {
        let request = match (&self.placed, self.order()) {
            (Some(placed), _) => wire::get(&format!("/orders/{}", placed["order"])),
            (None, Some(order)) => order.request(),
            (None, None) => wire::get(&format!("/items/{}", self.item())),
        };
        self.wire.send(&request);
    }

    /// Waits for the answer; whether it is good.
    fn is_served(&mut self) -> bool {
        let answer = self.wire.answer().expect("an answer");
        match (answer.status, &self.placed, self.order()) {
            (200, Some(placed), _) => assert_eq!(answer.json(), *placed),
            (201, None, Some(order)) => self.placed = Some(order.placed(&answer)),
            (200, None, None) => assert_eq!(answer.json()["id"], self.item()),
            _ => {
                answer.refuses_by_one_of(&[503]);
                return false;
            }
        }
        true
    }
}

/// Has them ask before any looks at its answer; those who are told to come back.
fn ask_at_once(mut members: Vec<&mut Member>) -> Vec<&mut Member> {
    members.iter_mut().for_each(|member| member.send());
    members.into_iter().filter_map(|member| (!member.is_served()).then_some(member)).collect()
}

#[test]
fn ten_thousand_who_are_there_at_once_are_each_answered_what_they_asked() {
    const WAVES: usize = 2;
    /// Fewer than the service takes on at a time.
    const FEW: usize = 500;
    let size = crowd_size();
    let backend = Backend::start(&[&PATIENT[..], &["--idle-timeout", LONG]].concat());
    // Whoever is too many is told to come back.
    let terms = Terms { orders: &[503], others: &[503], ..Terms::default() };
    let load = Load::start(backend.address(), terms);
    let mut crowd: Vec<_> = (0..size).map(|number| Member::connect(&backend, number)).collect();
    let (mut answers, mut refused) = (0, 0);
    for _ in 0..WAVES {
        let mut waiting: Vec<_> = crowd.iter_mut().collect();
        let mut at_once = size;
        while !waiting.is_empty() {
            let asking = waiting.split_off(waiting.len().saturating_sub(at_once));
            answers += asking.len() as u64;
            let again = ask_at_once(asking);
            refused += again.len() as u64;
            waiting.extend(again);
            at_once = FEW;
        }
    }
    load.await_good(1);
    drop(crowd);
    load.await_good(SOME);
    let seen = load.finish();
    let ended = backend.end();
    assert_eq!(ended.counter("requests_answered"), seen.all() + answers);
    assert_eq!(ended.counter("requests_shed"), seen.of(503) + refused);
    assert_eq!(ended.counter("requests_cut_off"), 0);
}

/// Ten thousand, or as many as there is room for, in this process and in the service, which needs some besides.
fn crowd_size() -> usize {
    const WANTED: usize = 10_000;
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let room = usize::try_from(hard).unwrap_or(usize::MAX);
    let size = room.saturating_sub(2_000).max(room / 4).min(WANTED);
    if size < WANTED {
        // Not a macro: what those print is kept by the harness.
        let told = format!("a crowd of {size} only: the limit on descriptors is {room}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
    }
    size
}

// ------------------------------------------------------------------------------------------------
// Without descriptors
// ------------------------------------------------------------------------------------------------

#[test]
fn when_more_come_than_there_are_descriptors_all_who_are_let_in_are_served_and_the_others_wait() {
    const DESCRIPTORS: usize = 256;
    let api = Api::start();
    let arguments = [&PATIENT[..], &["--request-timeout", LONG]].concat();
    let backend = Backend::start_within(DESCRIPTORS, &api, &arguments);
    let load = Load::start(backend.address(), Terms::default());
    load.await_good(SOME);
    // They take all places that there are, since nobody is asked to leave in the midst of a request.
    let mut crowd: Vec<_> = (0..DESCRIPTORS)
        .map(|number| {
            let customer = format!("{number} of many");
            let order = Order { item: number + 1, quantity: 1, customer };
            (order, Wire::connect(backend.address()).expect("nobody is refused"))
        })
        .collect();
    for (order, wire) in &mut crowd {
        wire.send(&order.request()[..9]);
    }
    // Those of the load who were in before.
    load.await_more(10 * SOME, |seen| seen.of(200));
    assert!(backend.descriptors() < DESCRIPTORS, "some are kept for what is asked of others");
    for (order, wire) in &mut crowd {
        wire.send(&order.request()[9..]);
    }
    let answers = crowd.len() as u64;
    for (order, mut wire) in crowd {
        let answer = wire.answer().expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        order.placed(&answer);
    }
    load.await_good(SOME);
    let seen = load.finish();
    let ended = backend.end();
    assert_eq!(ended.counter("requests_answered"), seen.all() + answers);
    assert!(!ended.log.contains("WARN"), "{}", ended.log);
}

#[test]
fn when_no_descriptor_is_to_be_had_for_a_while_nobody_is_answered_wrongly_and_it_costs_nothing() {
    const CROWD: usize = 300;
    let backend = Backend::start(&PATIENT);
    // What has to be opened cannot be.
    let terms = Terms { orders: &[502, 503], others: &[503], ..Terms::default() };
    let load = Load::start(backend.address(), terms);
    load.await_good(SOME);
    let come = || {
        let mut crowd: Vec<_> =
            (0..CROWD).map(|number| Member::connect(&backend, number)).collect();
        crowd.iter_mut().for_each(Member::send);
        crowd
    };
    let answered = |crowd: Vec<Member>| {
        let served = crowd.into_iter().map(|mut member| member.is_served());
        assert_eq!(served.filter(|&is_served| is_served).count(), CROWD);
    };

    backend.limit_descriptors(0);
    let crowd = come();
    // Those of the load who were in before.
    load.await_more(10 * SOME, |seen| seen.of(200));
    backend.limit_descriptors(u64::MAX);
    answered(crowd);
    load.await_good(SOME);
    let seen = load.finish();

    backend.limit_descriptors(0);
    let crowd = come();
    let began = Instant::now();
    let is_at_rest = || {
        let (since, before) = (Instant::now(), backend.cpu_time());
        std::thread::sleep(Duration::from_millis(300));
        backend.cpu_time() - before < since.elapsed() / 2
    };
    // What was begun before is still finished.
    while !is_at_rest() {
        assert!(began.elapsed() < PATIENCE, "it spins");
    }
    backend.limit_descriptors(u64::MAX);
    answered(crowd);
    let ended = backend.end();
    assert_eq!(ended.counter("requests_answered"), seen.all() + 2 * CROWD as u64);
}
