//! What is answered to whom: the routes, put together from the other modules.
//!
//! # Shedding load
//! Whoever takes all requests that come answers each later and later, until nobody waits for the answers any more that
//! it still works on. So past a stated number of requests under way, others are told at once to come back
//! ([`Retry-After`](Response::unavailable)), which costs some microseconds. What operators ask for is answered always.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use uthread_httpd::{Handler, Request, Response, Status};

use crate::api::Api;
use crate::failure::Failure;
use crate::gate::{Gate, Pass};
use crate::groups::{self, Groups};
use crate::jobs::{Job, Jobs, Product, State};
use crate::logging;
use crate::metrics::{Metrics, Present};
use crate::route::{Nowhere, Route};
use crate::store::Store;
use crate::telemetry::{self, Reading, Samples};
use crate::work::{self, Amount};
use crate::{json, order, query};

const LONGEST_NAME: usize = 64;
const SHORTEST_PASSWORD: usize = 8;
const LONGEST_PASSWORD: usize = 256;
const DEFAULT_WIDTH: u32 = 128;

/// The service's parts, which it uses and others have made.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Arc<Store>,
    /// The external API.
    pub api: Api,
    /// The kinds of work.
    pub groups: Groups,
    /// The queue of jobs.
    pub jobs: Arc<Jobs>,
    /// Where telemetry puts its samples.
    pub samples: Arc<Samples>,
    /// What has become of the log's lines.
    pub log: Arc<logging::Counters>,
    /// Images that may be made at once, by requests and by jobs.
    pub images: Arc<Gate>,
}

/// What the service is held to.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How much an order computes.
    pub amount: Amount,
    /// Requests under way beyond which others are turned away.
    pub under_way: usize,
    /// Passwords that may be hashed at once.
    pub passwords: usize,
    /// How long to wait for one's turn with an order, a password or an image.
    pub turn: Duration,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    parts: Parts,
    terms: Terms,
    passwords: Gate,
    /// For what orders compute.
    cores: Gate,
    /// The hash of a password that nobody has: a login of somebody unknown takes as long as any other, and so does not
    /// tell who is known.
    nobody: String,
    metrics: Metrics,
    under_way: AtomicUsize,
    answered: AtomicU64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    name: String,
    password: String,
}

type Answer<'a> = Result<Response<'a>, Failure>;

impl Service {
    /// A service of these parts.
    pub fn new(parts: Parts, terms: Terms) -> Service {
        let nobody = work::hash_password(&format!("{:x}", fastrand::u128(..)));
        Service {
            parts,
            passwords: Gate::new(terms.passwords),
            cores: Gate::new(uthread::available_parallelism().map_or(1, NonZero::get)),
            terms,
            nobody,
            metrics: Metrics::new(),
            under_way: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// What telemetry notes.
    pub fn reading(&self) -> Reading {
        Reading {
            under_way: self.under_way.load(Relaxed) as u64,
            answered: self.answered.load(Relaxed),
            shed: self.metrics.shed(),
            queued: self.parts.jobs.queued() as u64,
            log_dropped: self.parts.log.dropped.load(Relaxed),
        }
    }

    fn answer(&self, route: Route, request: &Request<'_>) -> Answer<'static> {
        let Parts { store, api, jobs, samples, .. } = &self.parts;
        let body = request.body;
        match route {
            Route::Item(id) => found(store.item(id)?, "item"),
            Route::Order(id) => found(store.order(id)?, "order"),
            Route::PlaceOrder => {
                let answer = order::place(
                    store,
                    api,
                    (&self.cores, self.terms.turn),
                    self.terms.amount,
                    body,
                )?;
                Ok(Response::json(Status::CREATED, json::write(&answer)))
            }
            Route::Register => self.register(body),
            Route::Login => self.login(body),
            Route::Thumbnail => self.thumbnail(request),
            Route::Submit => self.submit(json::read(body)?),
            Route::Job(number) => {
                let state = jobs.state(number).ok_or(Failure::Missing("job"))?;
                Ok(Response::json(Status::OK, json::write(&description(number, &state))))
            }
            Route::Product(number) => match jobs.state(number) {
                Some(State::Done(Product { content_type, body })) => {
                    Ok(Response::new(Status::OK, content_type, body.to_vec()))
                }
                Some(_) => Err(Failure::Conflict("the job is not done")),
                None => Err(Failure::Missing("job")),
            },
            Route::Telemetry => {
                let count = parameter(request, "samples")?.unwrap_or(telemetry::KEPT);
                Ok(Response::json(Status::OK, json::write(&samples.newest(count))))
            }
            Route::Health => {
                store.ping()?;
                Ok(Response::json(Status::OK, json::write(&json!({ "status": "ok" }))))
            }
            Route::Metrics => {
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                let Reading { under_way, queued, log_dropped, .. } = self.reading();
                let text = self.metrics.text(Present { under_way, queued, log_dropped });
                Ok(Response::new(Status::OK, content_type, text.into_bytes()))
            }
        }
    }

    fn register(&self, body: &[u8]) -> Answer<'static> {
        let Credentials { name, password } = credentials(body)?;
        let hash = {
            let _pass = self.turn(&self.passwords)?;
            work::hash_password(&password)
        };
        if !self.parts.store.add_user(&name, &hash)? {
            return Err(Failure::Conflict("there is a user of this name"));
        }
        Ok(Response::json(Status::CREATED, json::write(&json!({ "name": name }))))
    }

    fn login(&self, body: &[u8]) -> Answer<'static> {
        let Credentials { name, password } = credentials(body)?;
        let known = self.parts.store.password_hash(&name)?;
        let is_right = {
            let _pass = self.turn(&self.passwords)?;
            work::is_password(&password, known.as_ref().unwrap_or(&self.nobody))
        };
        if known.is_none() || !is_right {
            return Err(Failure::Denied);
        }
        Ok(Response::json(Status::OK, json::write(&json!({ "name": name }))))
    }

    fn thumbnail(&self, request: &Request<'_>) -> Answer<'static> {
        let width = parameter(request, "width")?.unwrap_or(DEFAULT_WIDTH);
        let _pass = self.turn(&self.parts.images)?;
        let images = &self.parts.groups.images;
        let jpeg = groups::elsewhere(images, || work::thumbnail(request.body, width))??;
        Ok(Response::new(Status::OK, "image/jpeg", jpeg))
    }

    fn submit(&self, job: Job) -> Answer<'static> {
        let number = self.parts.jobs.submit(job).ok_or(Failure::Busy("the queue is full"))?;
        Ok(Response::json(Status::ACCEPTED, json::write(&description(number, &State::Queued))))
    }

    fn turn<'a>(&self, gate: &'a Gate) -> Result<Pass<'a>, Failure> {
        gate.enter(self.terms.turn).ok_or(Failure::Busy("too many want the same"))
    }
}

/// Does a job with these parts.
///
/// # Errors
///
/// It cannot be done.
pub fn perform(store: &Store, images: &Gate, job: &Job) -> Result<Product, Failure> {
    match *job {
        Job::Report {} => {
            let report = json::write(&store.report()?);
            Ok(Product { content_type: "application/json", body: report.into() })
        }
        Job::Thumbnail { picture, width } => {
            let png = store.picture(picture)?.ok_or(Failure::Missing("picture"))?;
            // Nobody waits for a job: it takes its turn when it comes.
            let _pass = images.enter(Duration::MAX);
            let jpeg = work::thumbnail(&png, width)?;
            Ok(Product { content_type: "image/jpeg", body: jpeg.into() })
        }
    }
}

fn credentials(body: &[u8]) -> Result<Credentials, Failure> {
    let credentials: Credentials = json::read(body)?;
    if !(1..=LONGEST_NAME).contains(&credentials.name.len()) {
        return Err(Failure::Malformed(format!("name: from 1 to {LONGEST_NAME} bytes")));
    }
    if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&credentials.password.len()) {
        let sizes = format!("from {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}");
        return Err(Failure::Malformed(format!("password: {sizes} bytes")));
    }
    Ok(credentials)
}

fn parameter<N: std::str::FromStr>(
    request: &Request<'_>,
    name: &str,
) -> Result<Option<N>, Failure> {
    let text = query::value(request.query, name);
    let number = text.map(|text| text.parse()).transpose();
    number.map_err(|_| Failure::Malformed(format!("{name}: a number")))
}

fn found<T: Serialize>(thing: Option<T>, what: &'static str) -> Answer<'static> {
    let thing = thing.ok_or(Failure::Missing(what))?;
    Ok(Response::json(Status::OK, json::write(&thing)))
}

fn description(number: u64, state: &State) -> serde_json::Value {
    let mut description = json!({ "job": number, "state": state.name() });
    match state {
        State::Done(_) => description["product"] = format!("/jobs/{number}/product").into(),
        State::Failed(why) => description["error"] = (**why).into(),
        State::Queued | State::Running => {}
    }
    description
}

impl Service {
    fn respond<'a>(&self, route: Route, request: &Request<'a>) -> Response<'a> {
        let mut tally = Tally { service: self, route, status: 500, began: Instant::now() };
        let others = self.under_way.fetch_add(1, Relaxed);
        let response = if others >= self.terms.under_way && !route.is_for_operators() {
            self.metrics.count_shed();
            Failure::Busy("too many requests are under way").response()
        } else {
            self.answer(route, request).unwrap_or_else(|failure| {
                match &failure {
                    Failure::Own(_) => tracing::error!(route = route.name(), %failure),
                    Failure::NoStore(_) | Failure::Api(_) | Failure::ApiSlow => {
                        tracing::warn!(route = route.name(), %failure);
                    }
                    _ => {}
                }
                failure.response()
            })
        };
        tally.status = response.status.code();
        response
    }
}

impl Handler for Service {
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        match Route::of(request.method, request.path) {
            Ok(route) => self.respond(route, request),
            Err(Nowhere::Missing) => Failure::Missing("resource").response(),
            Err(Nowhere::NotAllowed(methods)) => Response::not_allowed(methods),
        }
    }
}

/// A request under way, which is counted at its end, be it by a panic.
struct Tally<'a> {
    service: &'a Service,
    route: Route,
    status: u16,
    began: Instant,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let time = self.began.elapsed();
        self.service.under_way.fetch_sub(1, Relaxed);
        self.service.answered.fetch_add(1, Relaxed);
        self.service.metrics.count(self.route.name(), self.status, time);
        let us = time.as_micros() as u64;
        tracing::info!(route = self.route.name(), status = self.status, us);
    }
}
