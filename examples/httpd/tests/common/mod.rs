//! A server in the test's own process, on each kind of threads, and a client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use uthread::Runtime;
use uthread_httpd::{GreenThreads, Handler, InPlace, Limits, OsThreads, Server, Threads};

/// When to give up on something that should take no time at all. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Green,
    Os,
    InPlace,
}

pub(crate) const ALL: [Kind; 3] = [Kind::Green, Kind::Os, Kind::InPlace];

/// Those that serve several connections at a time.
pub(crate) const CONCURRENT: [Kind; 2] = [Kind::Green, Kind::Os];

/// A running server, stopped when dropped.
pub(crate) struct Running {
    pub(crate) server: Arc<Server>,
    runner: Option<JoinHandle<()>>,
}

impl Running {
    /// On green threads, all of it is in a runtime of its own; else, it accepts on an OS thread.
    pub(crate) fn start(kind: Kind, limits: Limits, handler: impl Handler) -> Running {
        match kind {
            Kind::Green => {
                let server = bind(limits, handler, GreenThreads::new());
                let runtime = Runtime::builder().workers(2).build().unwrap();
                Running::on_thread(server, move |server| runtime.run(|| server.run()))
            }
            Kind::Os => Running::start_on(OsThreads::new().stack_size(64 << 10), limits, handler),
            Kind::InPlace => Running::start_on(InPlace, limits, handler),
        }
    }

    /// Accepts on an OS thread.
    pub(crate) fn start_on(
        threads: impl Threads,
        limits: Limits,
        handler: impl Handler,
    ) -> Running {
        Running::on_thread(bind(limits, handler, threads), |server| server.run())
    }

    fn on_thread(server: Server, run: impl FnOnce(&Arc<Server>) + Send + 'static) -> Running {
        let server = Arc::new(server);
        let running = Arc::clone(&server);
        Running { server, runner: Some(thread::spawn(move || run(&running))) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.server.local_addr().unwrap())
    }

    /// Sends a request on a connection of its own, which is answered and then closed.
    pub(crate) fn expect_last(&self, request: impl AsRef<[u8]>, status: u16) -> Answer {
        let mut client = self.connect();
        client.send(request);
        let answer = client.expect(status);
        assert_eq!(answer.field("Connection"), Some("close"));
        client.expect_end();
        answer
    }

    /// Waits for the server to end; panics if it did.
    pub(crate) fn join(&mut self) {
        let runner = self.runner.take().expect("the first join");
        wait_until("the server ends", || runner.is_finished());
        runner.join().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.server.stop();
        self.join();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.runner.is_some() && !thread::panicking() {
            self.stop();
        }
    }
}

fn bind(limits: Limits, handler: impl Handler, threads: impl Threads) -> Server {
    Server::bind(([127, 0, 0, 1], 0).into(), limits, handler, threads).unwrap()
}

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }

    /// Makes sure that a request of five bytes has begun and waits for its body.
    pub(crate) fn begin_request(&mut self) {
        let fields = "Host: test\r\nContent-Length: 5\r\nExpect: 100-continue";
        self.send(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(self.head().status, 100);
    }

    pub(crate) fn expect(&mut self, status: u16) -> Answer {
        let mut answer = self.head();
        assert_eq!(answer.status, status, "{}", answer.head);
        let length: usize = answer.field("Content-Length").expect("a length").parse().unwrap();
        while self.received.len() < length {
            assert_ne!(self.receive(), 0, "closed in the midst of an answer");
        }
        answer.body = self.received.drain(..length).collect();
        answer
    }

    pub(crate) fn head(&mut self) -> Answer {
        const END: &[u8] = b"\r\n\r\n";
        let length = loop {
            if let Some(at) = self.received.windows(END.len()).position(|window| window == END) {
                break at + END.len();
            }
            assert_ne!(self.receive(), 0, "closed instead of answered");
        };
        let head = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    fn receive(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).expect("neither a reset nor silence");
        self.received.extend(&buffer[..count]);
        count
    }

    /// The server must close the connection, properly and without another byte.
    pub(crate) fn expect_end(mut self) {
        assert_eq!(self.receive(), 0, "{:?}", String::from_utf8_lossy(&self.received));
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}
