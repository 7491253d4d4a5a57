//! The client: `ureq`, with limits of time.
//!
//! Limits are set for each phase and not for all together, since with one for all together `ureq` starts an OS thread for
//! each connection, which asks for the address. Connections are kept, as many as requests were ever under way: one that
//! is made anew costs the API a thread and us a round trip.

use std::fmt;
use std::time::Duration;

use ureq::Agent;

use super::Quote;

/// Of each connection, for what is sent and for what is received. `ureq`'s own size is 128 KiB each, resident once it
/// was used: with ten thousand requests under way that would be most of the process's memory.
const BUFFER: usize = 4 * 1024;

/// No answer is longer.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// It took too long.
    Slow,
    /// It cannot be reached, hung up, or answered with an error or with nonsense.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Slow => f.write_str("the API took too long"),
            Error::Failed(why) => write!(f, "the API failed: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ureq::Error> for Error {
    fn from(error: ureq::Error) -> Error {
        match error {
            ureq::Error::Timeout(_) => Error::Slow,
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Error::Slow,
            other => Error::Failed(other.to_string()),
        }
    }
}

/// How long the API may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// To take a connection.
    pub connect: Duration,
    /// To begin its answer, and then to end it.
    pub answer: Duration,
}

/// The client of the API.
#[derive(Debug)]
pub struct Api {
    agent: Agent,
    url: String,
}

impl Api {
    /// A client of the API at this URL, such as `http://127.0.0.1:9000`.
    pub fn new(url: &str, limits: TimeLimits) -> Api {
        let config = Agent::config_builder()
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_recv_body(Some(limits.answer))
            .http_status_as_error(false)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(usize::MAX)
            .max_idle_connections_per_host(usize::MAX)
            .proxy(None)
            .build();
        Api { agent: config.into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// What it costs to send so many of an item.
    ///
    /// # Errors
    ///
    /// It does not tell, or not in time.
    pub fn quote(&self, item: i64, quantity: u32) -> Result<Quote, Error> {
        let url = format!("{}{}", self.url, Quote::target(item, quantity));
        let mut answer = self.agent.get(url).call()?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Quote::read(status, &body, item, quantity)
    }
}
