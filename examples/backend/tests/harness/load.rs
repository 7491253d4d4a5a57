//! A small, steady load of requests whose every answer is checked.
//!
//! Each client knows what it must be answered: the order that it placed, when it asks for it again; the very bytes of a
//! thumbnail. Half of the clients keep their connections, the others make one for every request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uthread_backend::work::{sample_picture, thumbnail};

use super::wire::{self, Wire};
use super::{Answer, PATIENCE};

const CLIENTS: usize = 6;
const WIDTH: u32 = 20;

/// What a load puts up with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Errors that whoever places an order may be answered.
    pub(crate) orders: &'static [u16],
    /// Errors that others may be answered.
    pub(crate) others: &'static [u16],
    /// Whether the server may end: a client ends when a request is not taken any more.
    pub(crate) end: bool,
}

/// What there was to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Answers in full, by their status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Orders that were placed, as they were answered.
    pub(crate) orders: Vec<Value>,
    /// Good answers to each client.
    good: [u64; CLIENTS],
}

impl Seen {
    /// Answers of whatever kind.
    pub(crate) fn all(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Answers of this status.
    pub(crate) fn of(&self, status: u16) -> u64 {
        self.answers.get(&status).copied().unwrap_or_default()
    }
}

/// An order, which nobody else places.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) item: usize,
    pub(crate) quantity: usize,
    pub(crate) customer: String,
}

impl Order {
    pub(crate) fn request(&self) -> Vec<u8> {
        let Order { item, quantity, customer } = self;
        let body = json!({ "item": item, "quantity": quantity, "customer": customer });
        wire::post("/orders", body.to_string().as_bytes())
    }

    /// What a good answer to it says, which is about this one.
    pub(crate) fn placed(&self, answer: &Answer) -> Value {
        let placed = answer.json();
        let Order { item, quantity, customer } = self;
        assert_eq!(
            (&placed["item"], &placed["quantity"], &placed["customer"], &placed["name"]),
            (&json!(item), &json!(quantity), &json!(customer), &json!(format!("item {item}")))
        );
        placed
    }
}

struct Shared {
    address: String,
    terms: Terms,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    picture: Vec<u8>,
    thumbnail: Vec<u8>,
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients of this address.
    pub(crate) fn start(address: &str, terms: Terms) -> Load {
        let picture = sample_picture(60, 40, 1);
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            terms,
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            thumbnail: thumbnail(&picture, WIDTH).unwrap(),
            picture,
        });
        let client = |number| Client { shared: shared.clone(), number, wire: None };
        let start = |client: Client| std::thread::spawn(|| client.work());
        let clients = (0..CLIENTS).map(client).map(start).collect();
        Load { shared, clients }
    }

    /// What there was to see so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits until so many more have been seen of what this counts.
    pub(crate) fn await_more(&self, more: u64, what: impl Fn(&Seen) -> u64) {
        let enough = what(&self.seen()) + more;
        self.wait_until(|seen| what(seen) >= enough);
    }

    /// Waits until each client has so many more good answers.
    pub(crate) fn await_good(&self, more: u64) {
        let before = self.seen().good;
        self.wait_until(|seen| seen.good.iter().zip(before).all(|(now, then)| *now >= then + more));
    }

    fn wait_until(&self, is_so: impl Fn(&Seen) -> bool) {
        let began = Instant::now();
        loop {
            let seen = self.seen();
            if is_so(&seen) {
                return;
            }
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!failed && began.elapsed() < PATIENCE, "{:?} {:?}", seen.answers, seen.good);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, after the requests under way; what there was to see.
    pub(crate) fn finish(self) -> Seen {
        self.shared.stop.store(true, Relaxed);
        self.ended()
    }

    /// Waits for its end, as the server ends.
    pub(crate) fn ended(self) -> Seen {
        for client in self.clients {
            client.join().expect("every answer is right");
        }
        self.shared.seen.lock().unwrap().clone()
    }
}

struct Client {
    shared: Arc<Shared>,
    number: usize,
    wire: Option<Wire>,
}

/// The server takes no more requests.
struct Over;

impl Client {
    fn work(mut self) {
        for round in 0.. {
            if self.shared.stop.load(Relaxed) || self.round(round).is_err() {
                return;
            }
        }
    }

    fn round(&mut self, round: usize) -> Result<(), Over> {
        self.order(round)?;
        let id = round * CLIENTS + self.number + 1;
        let item = id % 1_000 + 1;
        if let Some(answer) = self.ask(&wire::get(&format!("/items/{item}")), 200, false)? {
            assert_eq!(answer.json()["name"], format!("item {item}"));
        }
        if round.is_multiple_of(4) {
            let request = wire::post(&format!("/thumbnail?width={WIDTH}"), &self.shared.picture);
            if let Some(answer) = self.ask(&request, 200, false)? {
                assert!(answer.body == self.shared.thumbnail, "another image");
            }
        }
        Ok(())
    }

    /// Places an order, and asks for it.
    fn order(&mut self, round: usize) -> Result<(), Over> {
        let order = Order {
            item: (round * CLIENTS + self.number) % 1_000 + 1,
            quantity: round % 7 + 1,
            customer: format!("customer {} of round {round}", self.number),
        };
        let Some(answer) = self.ask(&order.request(), 201, true)? else { return Ok(()) };
        let placed = order.placed(&answer);
        let target = format!("/orders/{}", placed["order"]);
        self.shared.seen.lock().unwrap().orders.push(placed.clone());
        if let Some(again) = self.ask(&wire::get(&target), 200, false)? {
            assert_eq!(again.json(), placed);
        }
        Ok(())
    }

    /// Asks; a good answer, which has this status, or none if there was an error that one puts up with.
    fn ask(&mut self, request: &[u8], good: u16, is_order: bool) -> Result<Option<Answer>, Over> {
        let Shared { address, terms, seen, .. } = &*self.shared;
        let wire = match self.wire.take() {
            Some(wire) => Some(wire),
            None => Wire::connect(address),
        };
        let answered = wire.and_then(|mut wire| Some((wire.ask(request)?, wire)));
        let Some((answer, wire)) = answered else {
            assert!(terms.end, "a request is lost");
            return Err(Over);
        };
        if self.number.is_multiple_of(2) && !wire.is_over {
            self.wire = Some(wire);
        }
        let mut seen = seen.lock().unwrap();
        *seen.answers.entry(answer.status).or_default() += 1;
        if answer.status == good {
            seen.good[self.number] += 1;
            return Ok(Some(answer));
        }
        drop(seen);
        let accepted = if is_order { terms.orders } else { terms.others };
        answer.refuses_by_one_of(accepted);
        Ok(None)
    }
}
