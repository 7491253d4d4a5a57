//! A TCP echo server in plain blocking code, one green thread per connection.
//!
//! ```text
//! $ cargo run --release --example echo -- --addr 127.0.0.1:7000
//! listening on 127.0.0.1:7000
//! ```

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use clap::Parser;
use uthread::Runtime;
use uthread::net::{TcpListener, TcpStream};

/// What one read takes at most; it is the memory a connection holds besides its stack.
const BUFFER_BYTES: usize = 4096;

/// How long to leave the kernel alone after it refused a connection, most likely for want of
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Sends back what it receives.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose one
    #[arg(long, default_value = "127.0.0.1:7000")]
    addr: SocketAddr,

    /// OS threads that run the green threads
    #[arg(long, default_value_t = uthread::available_parallelism().map_or(1, NonZero::get))]
    workers: usize,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let runtime = Runtime::builder().workers(args.workers).build()?;
    runtime.run(|| listen(args.addr))
}

fn listen(addr: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let started = listener
            .accept()
            .and_then(|(stream, _)| uthread::Builder::new().spawn(move || echo(&stream)));
        if let Err(error) = started {
            eprintln!("lost a connection: {error}");
            uthread::sleep(ACCEPT_PAUSE);
        }
    }
}

/// Serves one connection until the peer closes or breaks it.
fn echo(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(received) => stream.write_all(&buffer[..received])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
