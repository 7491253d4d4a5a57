//! An HTTP/1.1 server in plain blocking code, one green thread per connection.
//!
//! ```text
//! $ cargo run --release --example http -- --addr 127.0.0.1:8080
//! listening on 127.0.0.1:8080
//! $ curl http://127.0.0.1:8080/
//! Hello, World!
//! $ curl --data-binary @file http://127.0.0.1:8080/echo
//! ```
//!
//! With `--features inspect` and `UTHREAD_SOCKET=/tmp/http.sock` in its environment, `uthread-top /tmp/http.sock`
//! shows its threads, one for each connection; it takes no code for that.
//!
//! It has two resources, `/` says hello and `/echo` sends back the body posted to it; with
//! `--features prometheus` also `/metrics`, the runtime's figures. All else that makes a server is in the package
//! `uthread-httpd`, in `examples/httpd`: receiving and answering, limits on sizes and times, one reading of every
//! message or none, and an end that loses nothing. Its first page has a table of its modules.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedI64ValueParser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use uthread::Runtime;
use uthread_httpd::{GreenThreads, Handler, Limits, Request, Response, Server, Status};

/// Says hello on `/` and sends back what is posted to `/echo`.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: SocketAddr,

    /// OS threads that run the green threads
    #[arg(long, default_value_t = uthread::available_parallelism().map_or(1, NonZero::get))]
    workers: usize,

    /// Time for a request to arrive in full, from its first byte
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = positive())]
    request_timeout: u32,

    /// Time a connection may stay open between requests
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = positive())]
    idle_timeout: u32,
}

/// A time limit of zero would end every connection at once.
fn positive() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

impl Args {
    fn limits(&self) -> Limits {
        let request = Duration::from_secs(self.request_timeout.into());
        let idle = Duration::from_secs(self.idle_timeout.into());
        Limits { request, idle, write: request, ..Limits::default() }
    }
}

/// The resources.
struct Resources;

impl Handler for Resources {
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        match (request.path, request.method) {
            ("/", "GET" | "HEAD") => {
                Response::new(Status::OK, "text/plain", b"Hello, World!".as_slice())
            }
            ("/", _) => Response::not_allowed("GET, HEAD"),
            ("/echo", "POST") => {
                Response::new(Status::OK, "application/octet-stream", request.body)
            }
            ("/echo", _) => Response::not_allowed("POST"),
            #[cfg(feature = "prometheus")]
            ("/metrics", "GET" | "HEAD") => metrics(),
            #[cfg(feature = "prometheus")]
            ("/metrics", _) => Response::not_allowed("GET, HEAD"),
            _ => Response::empty(Status::NOT_FOUND),
        }
    }
}

/// The runtime's figures, for a monitoring system that asks for them now and then.
#[cfg(feature = "prometheus")]
fn metrics() -> Response<'static> {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Response::new(Status::OK, content_type, uthread::prometheus().into_bytes())
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    raise_descriptor_limit()?;
    let termination = block_termination()?;

    let runtime = Runtime::builder().workers(args.workers).build()?;
    let server = Server::bind(args.addr, args.limits(), Resources, GreenThreads::new())?;
    let server = Arc::new(server);
    writeln!(io::stdout(), "listening on {}", server.local_addr()?)?;

    stop_on(termination, &server);
    runtime.run(|| server.run());

    let mut stdout = io::stdout();
    write!(stdout, "{}", runtime.stats())?;
    writeln!(stdout, "connections_accepted {}", server.accepted())?;
    writeln!(stdout, "requests_served {}", server.served())
}

/// Lets the process have as many descriptors as it is allowed: every connection takes one, and the
/// soft limit is usually set for programs that use `select`.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Blocks the signals that ask for an end, so that they wait for whoever asks for them.
///
/// Threads inherit the mask: to be called while there is only one. A handler could do next to
/// nothing, on the stack of whichever green thread it interrupts; a thread that waits for signals
/// may do everything.
fn block_termination() -> nix::Result<SigSet> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Stops the server at the first of these signals.
fn stop_on(signals: SigSet, server: &Arc<Server>) {
    let server = Arc::clone(server);
    std::thread::spawn(move || {
        signals.wait().expect("sigwait takes any set of valid signals");
        server.stop();
    });
}
