//! The load: requests to the service, each on a connection of its own.
//!
//! **Who.** Green threads in the lab's own process, on the cores that the service does not have, or on all of them at a
//! higher priority: the users are other machines in truth. The same load goes to every way, so what it is made of
//! favours none.
//!
//! **Closed and open.** In a *closed* load a fixed number of requests is under way, and the next one is sent when one is
//! answered: that finds what a service can do at most. Its latencies say little of the users' (who do not wait for each
//! other), and a slow service is asked less. So where latencies are the point the load is *open*: requests are
//! due at fixed times, and latency counts from then, whether or not the load was late itself.
//!
//! **Not in step.** If all requests of a closed load began at the same time, and the service shared out its cores evenly,
//! all would end at the same time, and the next ones wait together: waves, between which the cores idle. Users do not
//! march in step. So the requests begin one after the other, spread over the time that one of them will take.
//!
//! **Window.** What is measured is what falls into a window of time in the midst of the load. Of a closed load these are
//! the requests that are answered in it, which is what throughput means; of an open one those that are due in it, since
//! those that are answered late must not be missing. All answers are checked, also those outside of the window.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use uthread::net::TcpStream;
use uthread::{JoinHandle, Runtime};

use crate::machine::{cores, pin_to};

/// After that, a request that nobody answers is lost.
const LOST: Duration = Duration::from_secs(60);

/// What is asked, and what must be answered.
pub(crate) trait Question: Send + Sync + 'static {
    /// The whole request, as bytes, of that number.
    fn request(&self, number: u64) -> Vec<u8>;

    /// Whether the body of the answer with status 200 is right; if not, why.
    fn check(&self, number: u64, body: &[u8]) -> Result<(), String>;
}

/// One request.
struct Sample {
    due: Instant,
    end: Instant,
    /// If not, what went wrong.
    outcome: Result<(), String>,
}

/// Which requests count.
#[derive(Clone, Copy)]
enum By {
    Answer,
    Due,
}

struct Target {
    addr: SocketAddr,
    question: Box<dyn Question>,
    /// No further request is to be sent.
    over: AtomicBool,
    /// The service has been ended, so that answers are missing.
    is_cut: AtomicBool,
}

/// A load that is under way.
pub(crate) struct Load {
    target: Arc<Target>,
    senders: Vec<JoinHandle<Vec<Sample>>>,
    /// Of an open load: who starts the senders.
    pacer: Option<JoinHandle<Vec<JoinHandle<Vec<Sample>>>>>,
    by: By,
    /// Dropped last: it waits for its threads.
    runtime: Runtime,
}

impl Load {
    /// Has so many requests under way at any time, once all have begun, which is spread over a time of `spread`.
    pub(crate) fn closed(
        addr: SocketAddr,
        on: &[usize],
        question: impl Question,
        in_flight: usize,
        spread: Duration,
    ) -> io::Result<Load> {
        let mut load = Load::new(addr, on, question, By::Answer)?;
        let numbers = Arc::new(Mutex::new(0..));
        for sender in 0..in_flight as u32 {
            let (target, numbers) = (load.target.clone(), numbers.clone());
            let next = move || numbers.lock().expect("nobody panics with it").next();
            let sender = load.runtime.spawn(move || {
                let mut samples = Vec::new();
                uthread::sleep(spread * sender / in_flight as u32);
                while !target.over.load(Relaxed) {
                    let number = next().expect("there is no end of numbers");
                    samples.push(target.sample(number, Instant::now()));
                }
                samples
            });
            load.senders.push(sender);
        }
        Ok(load)
    }

    /// Sends so many requests per second, `most` of them if that is given.
    pub(crate) fn open(
        addr: SocketAddr,
        on: &[usize],
        question: impl Question,
        per_second: f64,
        most: Option<usize>,
    ) -> io::Result<Load> {
        let mut load = Load::new(addr, on, question, By::Due)?;
        let target = load.target.clone();
        load.pacer = Some(load.runtime.spawn(move || {
            let began = Instant::now();
            let mut senders = Vec::new();
            for number in 0..most.unwrap_or(usize::MAX) as u64 {
                let due = began + Duration::from_secs_f64(number as f64 / per_second);
                uthread::sleep(due.saturating_duration_since(Instant::now()));
                if target.over.load(Relaxed) {
                    break;
                }
                let target = target.clone();
                senders.push(uthread::spawn(move || vec![target.sample(number, due)]));
            }
            senders
        }));
        Ok(load)
    }

    fn new(addr: SocketAddr, on: &[usize], question: impl Question, by: By) -> io::Result<Load> {
        let target = Target {
            addr,
            question: Box::new(question),
            over: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
        };
        // Threads inherit it.
        pin_to(on)?;
        let runtime = Runtime::builder().workers(on.len()).name("load").build();
        pin_to(cores())?;
        let target = Arc::new(target);
        Ok(Load { target, senders: Vec::new(), pacer: None, by, runtime: runtime? })
    }

    /// Sends no further request, and waits until those under way are answered; false if that takes longer.
    pub(crate) fn drained_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.target.over.store(true, Relaxed);
        if let Some(pacer) = self.pacer.take() {
            self.senders = pacer.join().expect("it does not panic");
        }
        while !self.senders.iter().all(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// To be told before the service is ended while requests are under way: they are not lost but cut off.
    pub(crate) fn cut_off(&mut self) {
        self.target.is_cut.store(true, Relaxed);
        self.drained_within(Duration::ZERO);
    }

    /// What became of the requests. Waits for all of them.
    pub(crate) fn tally(mut self, from: Instant, to: Instant) -> io::Result<Tally> {
        self.drained_within(LOST);
        let mut tally = Tally::new(to - from);
        for sender in self.senders.drain(..) {
            for sample in sender.join().expect("a sender does not panic") {
                let moment = match self.by {
                    By::Answer => sample.end,
                    By::Due => sample.due,
                };
                tally.add(&sample, (from..to).contains(&moment));
            }
        }
        Ok(tally)
    }
}

impl Target {
    fn sample(&self, number: u64, due: Instant) -> Sample {
        let outcome = self.ask(number);
        let end = Instant::now();
        let outcome = match outcome {
            Err(_) if self.is_cut.load(Relaxed) => Err(Tally::CUT_OFF.into()),
            other => other.map_err(|error| format!("request {number}: {error}")),
        };
        Sample { due, end, outcome }
    }

    fn ask(&self, number: u64) -> Result<(), String> {
        let bytes = self.exchange(number).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => format!("no answer for {LOST:?}"),
            _ => error.to_string(),
        })?;
        let (status, body) = parse(&bytes)?;
        match status {
            200 => self.question.check(number, body),
            _ => Err(format!("status {status}: {}", String::from_utf8_lossy(body))),
        }
    }

    fn exchange(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(LOST))?;
        stream.write_all(&self.question.request(number))?;
        let mut bytes = Vec::with_capacity(512);
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Status and body of an answer, which must be complete.
fn parse(bytes: &[u8]) -> Result<(u16, &[u8]), String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(format!("{} bytes, no head", bytes.len())),
        Err(error) => return Err(format!("no answer of HTTP: {error}")),
    };
    let body = &bytes[length..];
    let mut headers = head.headers.iter();
    let announced = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let announced: Option<usize> =
        announced.and_then(|header| str::from_utf8(header.value).ok()?.parse().ok());
    match announced {
        Some(announced) if body.len() == announced => Ok((head.code.unwrap_or(0), body)),
        _ => Err(format!("a body of {} bytes instead of {announced:?}", body.len())),
    }
}

/// What became of requests.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    window: Duration,
    /// Microseconds.
    latencies: Histogram<u64>,
    /// What went wrong, in the window or outside.
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) first_error: Option<String>,
    /// Requests under way when the service was ended.
    pub(crate) cut_off: u64,
}

impl Tally {
    const CUT_OFF: &str = "cut off";

    fn new(window: Duration) -> Tally {
        let latencies = Histogram::new(3).expect("three digits are a precision");
        Tally { window, latencies, errors: 0, first_error: None, cut_off: 0 }
    }

    fn add(&mut self, sample: &Sample, is_in_window: bool) {
        match &sample.outcome {
            Ok(()) if is_in_window => {
                let latency = sample.end.saturating_duration_since(sample.due);
                self.latencies += latency.as_micros() as u64;
            }
            Ok(()) => {}
            Err(error) if error == Tally::CUT_OFF => self.cut_off += 1,
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// Adds those of another window.
    pub(crate) fn join(&mut self, other: &Tally) {
        self.window += other.window;
        self.latencies += &other.latencies;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.cut_off += other.cut_off;
    }

    /// Answered in the window.
    pub(crate) fn answered(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.window.as_secs_f64()
    }

    /// Milliseconds that so many percent of the requests took at most. 0 if there were none.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1000.0
    }
}
