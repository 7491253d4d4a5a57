//! The external API: what it costs to send an order, told by somebody else, over HTTP.
//!
//! [`Api`] is the client, which blocks. [`server`] is the API itself, for a process of its own, since
//! its threads and its CPU time are not the service's.

mod client;
mod connection;
mod latency;
pub mod server;

pub use client::{Api, Error, TimeLimits};
pub use latency::Latency;

use serde::{Deserialize, Serialize};

/// What it costs to send an order.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// The price.
    pub cents: i64,
    /// Days until it arrives.
    pub days: u32,
}

/// What the API answers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct QuoteAnswer {
    /// What was asked about, so that an answer that was meant for another question does not go unnoticed.
    pub item: i64,
    /// How many of it.
    pub quantity: u32,
    /// The price.
    pub cents: i64,
    /// Days until it arrives.
    pub days: u32,
}

impl QuoteAnswer {
    /// What the API says to this question.
    pub fn to(item: i64, quantity: u32) -> QuoteAnswer {
        let cents = 390 + item.rem_euclid(50) * 10 + i64::from(quantity) * 5;
        QuoteAnswer { item, quantity, cents, days: 1 + quantity / 100 }
    }
}

impl Quote {
    /// The path and the query that ask for it.
    pub fn target(item: i64, quantity: u32) -> String {
        format!("/quote?item={item}&quantity={quantity}")
    }

    /// Reads the answer to a question.
    ///
    /// # Errors
    ///
    /// It is an error, is no JSON, or answers another question.
    pub fn read(status: u16, body: &[u8], item: i64, quantity: u32) -> Result<Quote, Error> {
        if status != 200 {
            return Err(Error::Failed(format!("it answered with status {status}")));
        }
        let answer: QuoteAnswer =
            serde_json::from_slice(body).map_err(|error| Error::Failed(error.to_string()))?;
        if (answer.item, answer.quantity) != (item, quantity) {
            return Err(Error::Failed("it answered another question".to_owned()));
        }
        Ok(Quote { cents: answer.cents, days: answer.days })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_by_its_question() {
        let body = serde_json::to_vec(&QuoteAnswer::to(7, 2)).unwrap();
        Quote::read(200, &body, 7, 2).unwrap();
        Quote::read(200, &body, 8, 2).unwrap_err();
        Quote::read(500, &body, 7, 2).unwrap_err();
        Quote::read(200, &body[1..], 7, 2).unwrap_err();
    }
}
