//! The request of the story: an order, from its JSON to its answer.
//!
//! ```text
//! 1  Wanted::parse      the body                                          computes
//! 2  Store::item        what is wanted: its name, its price               waits for the database
//! 3  Api::quote         what it costs to send it, from somebody else      waits for the network
//! 4  Placed::new        the sum and the receipt                           computes: some ten milliseconds
//! 5  Store::record      the order                                         waits for the database
//! 6  Placed::answer     the JSON                                          computes
//! ```
//!
//! Orders compute by turns, as many at once as there are cores: threads that share a core by slices of time are all done
//! late, at the time of the last of them, and wait for their next answers together then, while the core has nothing to do.
//!
//! What computes is a pure function, and what waits is a call of [`Store`] or [`Api`]; [`place`] puts them one after
//! the other, which is all that blocking code has to say. An asynchronous service composes the very same steps around
//! waits of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{Api, Quote};
use crate::failure::Failure;
use crate::gate::Gate;
use crate::json;
use crate::store::{Item, Store};
use crate::work::{self, Amount};

/// The most that one may order at once.
const MOST: u32 = 1_000;
const LONGEST_NAME: usize = 100;

/// What a client asks for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The number of the item.
    pub item: i64,
    /// How many of it.
    pub quantity: u32,
    /// For whom.
    pub customer: String,
}

impl Wanted {
    /// Reads the body of a request, and says whether it makes sense.
    ///
    /// # Errors
    ///
    /// [`Failure::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Wanted, Failure> {
        let wanted: Wanted = json::read(body)?;
        if !(1..=MOST).contains(&wanted.quantity) {
            return Err(Failure::Malformed(format!("quantity: from 1 to {MOST}")));
        }
        if wanted.customer.is_empty() || wanted.customer.len() > LONGEST_NAME {
            return Err(Failure::Malformed(format!("customer: from 1 to {LONGEST_NAME} bytes")));
        }
        Ok(wanted)
    }
}

/// An order that is complete but for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What was asked for.
    pub wanted: Wanted,
    /// The name of the item.
    pub name: String,
    /// What it costs, with sending it.
    pub total_cents: i64,
    /// Days until it arrives.
    pub days: u32,
    /// What tells it from any other order: see [`work::receipt`].
    pub receipt: String,
}

/// What a client is told about an order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The number of the order.
    pub order: i64,
    /// The number of the item.
    pub item: i64,
    /// The name of the item.
    pub name: String,
    /// How many of it.
    pub quantity: u32,
    /// For whom.
    pub customer: String,
    /// What it costs, with sending it.
    pub total_cents: i64,
    /// Days until it arrives.
    pub days: u32,
    /// See [`Placed::receipt`].
    pub receipt: String,
}

impl Placed {
    /// Prices an order, and makes its receipt: this is where the CPU time goes.
    pub fn new(wanted: Wanted, item: Item, quote: Quote, amount: Amount) -> Placed {
        let total_cents = item.price_cents * i64::from(wanted.quantity) + quote.cents;
        let facts =
            format!("{}\0{}\0{}\0{total_cents}", wanted.customer, wanted.item, wanted.quantity);
        let receipt = work::receipt(facts.as_bytes(), amount);
        Placed { wanted, name: item.name, total_cents, days: quote.days, receipt }
    }

    /// What is told when it has got its number.
    pub fn answer(self, order: i64) -> Answer {
        let Placed {
            wanted: Wanted { item, quantity, customer },
            name,
            total_cents,
            days,
            receipt,
        } = self;
        Answer { order, item, name, quantity, customer, total_cents, days, receipt }
    }
}

/// Takes an order: all steps one after the other, in blocking code. It computes when it gets a pass of `cores`, and waits
/// no longer than said for that.
///
/// # Errors
///
/// The body is malformed, there is no such item, its turn does not come in time, or the database or the API fails. Nothing is recorded then; but if the
/// database fails while it records, nobody knows whether it did.
pub fn place(
    store: &Store,
    api: &Api,
    cores: (&Gate, Duration),
    amount: Amount,
    body: &[u8],
) -> Result<Answer, Failure> {
    let wanted = Wanted::parse(body)?;
    let item = store.item(wanted.item)?.ok_or(Failure::Missing("item"))?;
    let quote = api.quote(wanted.item, wanted.quantity)?;
    let (cores, patience) = cores;
    let turn = cores.enter(patience).ok_or(Failure::Busy("too many orders at once"))?;
    let placed = Placed::new(wanted, item, quote, amount);
    drop(turn);
    let order = store.record(&placed)?;
    Ok(placed.answer(order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        Wanted::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_body_that_makes_no_sense_is_refused_with_the_place() {
        assert!(refusal("{").contains("line 1 column 1"));
        assert!(refusal("{\"item\": 1,\n \"quantity\": \"two\"}").contains("line 2 column 18"));
        assert!(refusal(r#"{"item":1,"quantity":1}"#).contains("missing field `customer`"));
        assert!(refusal(r#"{"item":1,"quantity":0,"customer":"a"}"#).starts_with("quantity"));
        assert!(refusal(r#"{"item":1,"quantity":1,"customer":""}"#).starts_with("customer"));
        assert!(
            refusal(r#"{"item":1,"quantity":1,"customer":"a","gift":true}"#)
                .contains("unknown field")
        );
    }

    #[test]
    fn an_order_is_priced_and_answered() {
        let wanted = Wanted { item: 7, quantity: 3, customer: "Ada".to_owned() };
        let item = Item { id: 7, name: "lamp".to_owned(), price_cents: 250 };
        let placed = Placed::new(wanted, item, Quote { cents: 99, days: 2 }, Amount { rounds: 1 });
        assert_eq!(placed.total_cents, 849);
        let answer = placed.clone().answer(12);
        assert_eq!((answer.order, answer.days, &answer.receipt), (12, 2, &placed.receipt));
    }
}
