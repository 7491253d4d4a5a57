//! The service on tokio, as its documentation teaches: `hyper` on a runtime with a worker per core.
//!
//! It composes the same steps of [`uthread_backend::order`] as the blocking service, but around waits of its own. What
//! waits for the network is asynchronous, by `hyper-util`'s client. What blocks (the database) or computes must not be
//! done by a worker, on which every other request waits: it goes to tokio's blocking threads (`spawn_blocking`).
//! Those are hundreds, so what computes first takes a permit, of which orders have some and images have others: neither
//! waits for the other's. For the mixed part the same is there without that care (`inline`), as code looks whose author
//! did not know, or did not measure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uthread_backend::api::Quote;
use uthread_backend::order::{Placed, Wanted};
use uthread_backend::store::Store;
use uthread_backend::work::Amount;

use crate::child::answer_orders;
use crate::service::{Images, open_store};
use crate::usage::Counted;
use crate::way::Setup;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The process's life.
pub(crate) fn run(setup: &Setup) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(setup.cores.len()).enable_all().build()?;
    let service = Arc::new(Service::new(setup)?);
    runtime.block_on(async {
        for number in 0..setup.image_jobs {
            tokio::spawn(service.clone().make_images_smaller(number));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let counted = service.clone();
        answer_orders(listener.local_addr()?, move || counted.counted())?;
        // Accepting on a worker is cheaper than on this thread, which is none.
        tokio::spawn(accept(listener, service)).await?
    })
}

async fn accept(listener: TcpListener, service: Arc<Service>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| service.clone().answer(request));
            // If that fails, the peer has gone.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

struct Service {
    store: Arc<Store>,
    client: Client<HttpConnector, Empty<Bytes>>,
    api: String,
    amount: Amount,
    // For those who compute on blocking threads:
    orders: Semaphore,
    images: Semaphore,
    inline: bool,
    under_way: AtomicU64,
    smaller: Images,
}

impl Service {
    fn new(setup: &Setup) -> io::Result<Service> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Service {
            store: Arc::new(open_store(setup)?),
            client: Client::builder(TokioExecutor::new()).build(connector),
            api: format!("http://{}", setup.api),
            amount: Amount { rounds: setup.rounds },
            orders: Semaphore::new(setup.computing()),
            images: Semaphore::new(setup.computing()),
            inline: setup.inline,
            under_way: AtomicU64::new(0),
            smaller: Images::default(),
        })
    }

    fn counted(&self) -> Counted {
        Counted {
            green_switches: 0,
            under_way: self.under_way.load(Relaxed),
            images: self.smaller.count(),
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        self.under_way.fetch_add(1, Relaxed);
        let placed = self.place(request).await;
        self.under_way.fetch_sub(1, Relaxed);
        let (status, body) = match placed {
            Ok(json) => (StatusCode::OK, json),
            Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, failure.to_string().into()),
        };
        Ok(Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?)
    }

    /// As `order::place`.
    async fn place(&self, request: Request<Incoming>) -> Result<Vec<u8>, Failure> {
        let body = request.into_body().collect().await?.to_bytes();
        let wanted = Wanted::parse(&body).map_err(|failure| failure.to_string())?;
        let (store, id) = (self.store.clone(), wanted.item);
        let item = spawn_blocking(move || store.item(id)).await??.ok_or("there is no such item")?;
        let quote = self.quote(wanted.item, wanted.quantity).await?;
        let amount = self.amount;
        let placed =
            self.compute(&self.orders, move || Placed::new(wanted, item, quote, amount)).await?;
        let store = self.store.clone();
        let answer =
            spawn_blocking(move || store.record(&placed).map(|order| placed.answer(order)));
        Ok(serde_json::to_vec(&answer.await??)?)
    }

    async fn quote(&self, item: i64, quantity: u32) -> Result<Quote, Failure> {
        let url = format!("{}{}", self.api, Quote::target(item, quantity));
        let answer = self.client.get(url.parse()?).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(Quote::read(status, &body, item, quantity)?)
    }

    async fn compute<T: Send + 'static>(
        &self,
        turns: &Semaphore,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if self.inline {
            return Ok(work());
        }
        let _permit = turns.acquire().await?;
        Ok(spawn_blocking(work).await?)
    }

    async fn make_images_smaller(self: Arc<Self>, number: usize) -> Result<(), Failure> {
        let picture = Arc::new(Images::picture(number));
        loop {
            let (service, picture) = (self.clone(), picture.clone());
            self.compute(&self.images, move || service.smaller.make_smaller(&picture)).await?;
            tokio::task::yield_now().await;
        }
    }
}
