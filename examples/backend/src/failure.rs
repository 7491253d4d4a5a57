//! Why a request has no good answer.
//!
//! Each part of the service has errors of its own; here they become what a client can do something about: change the
//! request, come back later, or tell somebody.

use std::fmt;

use serde_json::json;
use uthread_httpd::{Response, Status};

use crate::{api, json, store, work};

/// Seconds after which to come back.
const COME_BACK: u32 = 1;

/// Why a request has no good answer.
#[derive(Debug)]
pub enum Failure {
    /// What was sent is not what is expected; where it is not.
    Malformed(String),
    /// There is no such thing.
    Missing(&'static str),
    /// Somebody else was first, or too little is left.
    Conflict(&'static str),
    /// The name or the password is wrong.
    Denied,
    /// More is to be done than can be just now.
    Busy(&'static str),
    /// The database cannot be asked just now.
    NoStore(String),
    /// The external API answered, but not with what it was asked; or did not let itself be reached.
    Api(String),
    /// The external API took too long.
    ApiSlow,
    /// Something is wrong here.
    Own(String),
}

impl Failure {
    /// What is said instead of an answer.
    pub fn response(&self) -> Response<'static> {
        let (status, retry_after) = match self {
            Failure::Malformed(_) => (Status::BAD_REQUEST, None),
            Failure::Missing(_) => (Status::NOT_FOUND, None),
            Failure::Conflict(_) => (Status::CONFLICT, None),
            // 401 would promise a way to authenticate by HTTP's own means.
            Failure::Denied => (Status::FORBIDDEN, None),
            Failure::Busy(_) | Failure::NoStore(_) => {
                (Status::SERVICE_UNAVAILABLE, Some(COME_BACK))
            }
            Failure::Api(_) => (Status::BAD_GATEWAY, None),
            Failure::ApiSlow => (Status::GATEWAY_TIMEOUT, None),
            Failure::Own(_) => (Status::INTERNAL_SERVER_ERROR, None),
        };
        // What went wrong in here is for the log.
        let text = match self {
            Failure::Own(_) => "internal error".to_owned(),
            Failure::NoStore(_) => "the database cannot be asked just now".to_owned(),
            Failure::Api(_) => "the external API failed".to_owned(),
            other => other.to_string(),
        };
        let body = json::write(&json!({ "error": text }));
        Response { retry_after, ..Response::json(status, body) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Malformed(what) => f.write_str(what),
            Failure::Missing(what) => write!(f, "there is no such {what}"),
            Failure::Conflict(what) | Failure::Busy(what) => f.write_str(what),
            Failure::Denied => f.write_str("the name or the password is wrong"),
            Failure::NoStore(why) => write!(f, "the database cannot be asked: {why}"),
            Failure::Api(why) => write!(f, "the external API failed: {why}"),
            Failure::ApiSlow => f.write_str("the external API took too long"),
            Failure::Own(why) => write!(f, "internal error: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        match error {
            store::Error::Unavailable(why) => Failure::NoStore(why),
            store::Error::Refused(why) => Failure::Own(why),
        }
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Failure {
        match error {
            api::Error::Slow => Failure::ApiSlow,
            api::Error::Failed(why) => Failure::Api(why),
        }
    }
}

impl From<work::NotAnImage> for Failure {
    fn from(error: work::NotAnImage) -> Failure {
        Failure::Malformed(error.to_string())
    }
}
