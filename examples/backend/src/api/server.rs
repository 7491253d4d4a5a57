//! The API itself: it answers after a while, or not at all.
//!
//! It stands for somebody else's service, so it can be told to behave as those do: `POST /control` with
//! `{"latency":"20-30","fault":"hang"}`, either field at will, sets what it does from then on, also to those whom it keeps waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use uthread_httpd::{GreenThreads, Handler, Limits, Request, Response, Server, Status};

use super::{Latency, QuoteAnswer};
use crate::json;
use crate::query;

/// How it fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// It takes questions and does not answer, until it is told otherwise.
    Hang,
    /// It resets connections instead of answering.
    Reset,
    /// It answers 500.
    Error,
    /// It answers something else than JSON.
    Nonsense,
}

/// What a control request sets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    latency: Option<String>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
struct Behaviour {
    latency: Latency,
    fault: Fault,
}

/// The API's handler.
#[derive(Debug)]
struct Supplier(Mutex<Behaviour>);

/// How often those who hang look whether they still have to. They are waked by nobody: in a process whose blocking functions
/// are not interposed, thousands who wait for a condition would take an OS thread each.
const LOOK: Duration = Duration::from_millis(5);

/// The API, bound to an address; [`Server::run`] serves, and then [`Server::stop`] ends it.
///
/// # Errors
///
/// The address cannot be had.
pub fn bind(address: SocketAddr, latency: Latency) -> io::Result<Arc<Server>> {
    let supplier = Supplier(Mutex::new(Behaviour { latency, fault: Fault::None }));
    // Clients keep their connections, and close them first: no question meets an end.
    let limits = Limits {
        idle: Duration::from_secs(600),
        drain: Duration::from_secs(1),
        ..Limits::default()
    };
    Ok(Arc::new(Server::bind(address, limits, supplier, GreenThreads::new())?))
}

impl Supplier {
    fn behaviour(&self) -> Behaviour {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quote(&self, request: &Request<'_>) -> Response<'static> {
        let number = |name| query::value(request.query, name).and_then(|text| text.parse().ok());
        let (Some(item), Some(quantity)) = (number("item"), number("quantity")) else {
            return Response::text(Status::BAD_REQUEST, "item and quantity are numbers");
        };
        let Ok(quantity) = u32::try_from(quantity) else {
            return Response::text(Status::BAD_REQUEST, "quantity is too large");
        };
        uthread::sleep(self.behaviour().latency.pick());
        while self.behaviour().fault == Fault::Hang {
            uthread::sleep(LOOK);
        }
        match self.behaviour().fault {
            Fault::None | Fault::Hang => {
                Response::json(Status::OK, json::write(&QuoteAnswer::to(item, quantity)))
            }
            Fault::Reset => Response::reset(),
            Fault::Error => Response::text(Status::INTERNAL_SERVER_ERROR, "out of order"),
            Fault::Nonsense => Response::json(Status::OK, b"{\"cents\":".as_slice()),
        }
    }

    fn control(&self, body: &[u8]) -> Result<(), String> {
        let control: Control = json::read(body).map_err(|failure| failure.to_string())?;
        let latency = control.latency.map(|text| text.parse()).transpose()?;
        let mut behaviour = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        behaviour.latency = latency.unwrap_or(behaviour.latency);
        behaviour.fault = control.fault.unwrap_or(behaviour.fault);
        Ok(())
    }
}

impl Handler for Supplier {
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        match (request.method, request.path) {
            ("GET", "/quote") => self.quote(request),
            ("POST", "/control") => match self.control(request.body) {
                Ok(()) => Response::empty(Status::OK),
                Err(why) => Response::text(Status::BAD_REQUEST, why),
            },
            _ => Response::empty(Status::NOT_FOUND),
        }
    }
}
