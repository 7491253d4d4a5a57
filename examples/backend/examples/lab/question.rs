//! What the load asks for, orders, and how it tells a right answer from a wrong one.
//!
//! Every order is for another customer, so that an answer that belongs to somebody else is noticed; what it says of the
//! item must be what was asked. The receipt costs as much to check as to make, so the load would want as much CPU
//! time as the service: it is checked for the first few orders and for those of a few customers that come again.

use std::collections::HashMap;
use std::sync::Mutex;

use uthread_backend::api::QuoteAnswer;
use uthread_backend::order::{Answer, Wanted};
use uthread_backend::store::ITEMS;
use uthread_backend::work::{self, Amount};

use crate::load::Question;

/// Orders that come again, as every so many-th one.
const REGULARS: u64 = 4;
const EVERY: u64 = 16;

/// Orders whose receipts are of some amount of work.
pub(crate) struct Orders {
    amount: Amount,
    /// Receipts of regulars, by what is hashed.
    receipts: Mutex<HashMap<String, String>>,
}

impl Orders {
    pub(crate) fn of(amount: Amount) -> Orders {
        Orders { amount, receipts: Mutex::default() }
    }

    fn wanted(number: u64) -> (Wanted, bool) {
        let is_regular = number.is_multiple_of(EVERY);
        let number = if is_regular { number / EVERY % REGULARS } else { number };
        let customer = format!("{} {number}", if is_regular { "regular" } else { "customer" });
        let item = 1 + number.cast_signed() % ITEMS;
        (Wanted { item, quantity: 1 + number as u32 % 9, customer }, is_regular)
    }
}

impl Question for Orders {
    fn request(&self, number: u64) -> Vec<u8> {
        let body = serde_json::to_string(&Orders::wanted(number).0).expect("it has no odd keys");
        let length = body.len();
        format!(
            "POST /order HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn check(&self, number: u64, body: &[u8]) -> Result<(), String> {
        let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let (wanted, is_regular) = Orders::wanted(number);
        let Answer { item, quantity, ref customer, total_cents, .. } = answer;
        let quote = QuoteAnswer::to(item, quantity).cents;
        let is_it = item == wanted.item
            && quantity == wanted.quantity
            && *customer == wanted.customer
            && total_cents > quote
            && (total_cents - quote) % i64::from(quantity) == 0;
        if !is_it {
            return Err(format!("a wrong answer: {answer:?} to {wanted:?}"));
        }
        if is_regular {
            self.check_receipt(&answer)?;
        }
        Ok(())
    }
}

impl Orders {
    fn check_receipt(&self, answer: &Answer) -> Result<(), String> {
        let Answer { item, quantity, customer, total_cents, receipt, .. } = answer;
        let facts = format!("{customer}\0{item}\0{quantity}\0{total_cents}");
        let mut receipts = self.receipts.lock().expect("nobody panics with it");
        let right = receipts
            .entry(facts)
            .or_insert_with_key(|facts| work::receipt(facts.as_bytes(), self.amount));
        if receipt == right { Ok(()) } else { Err(format!("a wrong receipt: {answer:?}")) }
    }
}
