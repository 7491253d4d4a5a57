//! The service in blocking code: one handler, whoever runs it.
//!
//! It is [`order::place`] and nothing else: what the service of this package does for an order, without its other routes
//! and without shedding load, since here everybody is to be served. Only the threads differ between the ways.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use uthread::Runtime;
use uthread_backend::api::{Api, TimeLimits};
use uthread_backend::gate::Gate;
use uthread_backend::groups::Groups;
use uthread_backend::order;
use uthread_backend::store::{Location, Store};
use uthread_backend::work::{self, Amount};
use uthread_httpd::{
    GreenThreads, Handler, InPlace, Limits, OsThreads, Request, Response, Server, Status, Threads,
};

use crate::child::answer_orders;
use crate::usage::Counted;
use crate::way::{Setup, Way};

/// Connections to the database, in every way. Its questions take microseconds.
const CONNECTIONS: usize = 8;

/// Longer than anything takes here, ten thousand requests at once included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LIMITS: TimeLimits = TimeLimits { connect: PATIENCE, answer: PATIENCE };

pub(crate) fn open_store(setup: &Setup) -> io::Result<Store> {
    let location = Location::Sqlite(setup.database.clone());
    Store::open(&location, CONNECTIONS, PATIENCE).map_err(io::Error::other)
}

/// The process's life, but for tokio's way.
pub(crate) fn run(setup: &Setup) -> io::Result<()> {
    match setup.way {
        Way::OneAtATime => Service::new(setup)?.serve(InPlace, || 0),
        Way::OsThreads => {
            let service = Service::new(setup)?;
            for number in 0..setup.image_jobs {
                let images = service.images.clone();
                std::thread::spawn(move || images.make_smaller_for_ever(number));
            }
            service.serve(OsThreads::new(), || 0)
        }
        Way::Green => run_green(setup),
        Way::Tokio => crate::event_loop::run(setup),
    }
}

fn run_green(setup: &Setup) -> io::Result<()> {
    let workers = setup.workers.unwrap_or(setup.cores.len());
    let runtime = Runtime::builder().workers(workers).preemption(setup.preemption).build()?;
    let runtime = Arc::new(runtime);
    let Groups { requests, images, .. } = Groups::new()?;
    let images = if setup.groups { images } else { requests.clone() };
    let counters = runtime.clone();
    let switches = move || counters.workers().iter().map(|worker| worker.switches).sum();
    runtime.run(|| {
        let service = Service::new(setup)?;
        for number in 0..setup.image_jobs {
            let jobs = service.images.clone();
            uthread::Builder::new()
                .group(&images)
                .spawn(move || jobs.make_smaller_for_ever(number))?;
        }
        // Who accepts belongs to the requests, too.
        uthread::Builder::new()
            .group(&requests)
            .spawn(move || service.serve(GreenThreads::new(), switches))?
            .join()
            .expect("the server does not panic")
    })
}

/// What answers.
struct Service {
    store: Store,
    api: Api,
    cores: Gate,
    amount: Amount,
    under_way: Arc<AtomicU64>,
    images: Arc<Images>,
}

impl Service {
    fn new(setup: &Setup) -> io::Result<Service> {
        Ok(Service {
            store: open_store(setup)?,
            api: Api::new(&format!("http://{}", setup.api), LIMITS),
            cores: Gate::new(setup.computing()),
            amount: Amount { rounds: setup.rounds },
            under_way: Arc::default(),
            images: Arc::default(),
        })
    }

    fn serve(
        self,
        threads: impl Threads,
        green_switches: impl Fn() -> u64 + Send + 'static,
    ) -> io::Result<()> {
        let (under_way, images) = (self.under_way.clone(), self.images.clone());
        let limits =
            Limits { request: PATIENCE, idle: PATIENCE, write: PATIENCE, ..Limits::default() };
        let server = Server::bind(([127, 0, 0, 1], 0).into(), limits, self, threads)?;
        let server = Arc::new(server);
        answer_orders(server.local_addr()?, move || Counted {
            green_switches: green_switches(),
            under_way: under_way.load(Relaxed),
            images: images.count(),
        })?;
        server.run();
        Ok(())
    }
}

impl Handler for Service {
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        self.under_way.fetch_add(1, Relaxed);
        let placed = order::place(
            &self.store,
            &self.api,
            (&self.cores, PATIENCE),
            self.amount,
            request.body,
        );
        self.under_way.fetch_sub(1, Relaxed);
        match placed {
            Ok(answer) => {
                let json = serde_json::to_vec(&answer).expect("it has no odd keys");
                Response::json(Status::OK, json)
            }
            Err(failure) => Response::text(Status::INTERNAL_SERVER_ERROR, failure.to_string()),
        }
    }
}

/// Images that are made smaller all the time.
#[derive(Default)]
pub(crate) struct Images(AtomicU64);

impl Images {
    /// Of how many a job makes its thumbnails; the sides of each, and of a thumbnail.
    const SIDES: (u32, u32) = (640, 480);
    const WIDTH: u32 = 200;

    pub(crate) fn picture(number: usize) -> Vec<u8> {
        work::sample_picture(Images::SIDES.0, Images::SIDES.1, number as u32)
    }

    pub(crate) fn make_smaller(&self, picture: &[u8]) {
        let small = work::thumbnail(picture, Images::WIDTH).expect("the picture is whole");
        std::hint::black_box(small);
        self.0.fetch_add(1, Relaxed);
    }

    fn make_smaller_for_ever(&self, number: usize) {
        let picture = Images::picture(number);
        loop {
            self.make_smaller(&picture);
            // As where the next image is another job: others go first if they can. Without it and without preemption, nobody
            // else ever would.
            std::thread::yield_now();
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
