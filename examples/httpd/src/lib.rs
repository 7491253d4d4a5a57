//! An HTTP/1.1 server in plain blocking code: one thread per connection, of whichever kind.
//!
//! Who serves gives a [`Handler`], which makes a [`Response`] of a [`Request`], and [`Threads`], which run the
//! connections: green ones, those of the operating system, or none but the caller's. The rest is what a server that
//! faces strangers needs: [`Limits`] on sizes, times and numbers, one reading of every message or none, and an end that
//! loses nothing. A reader of the modules meets a request in this order:
//!
//! | module | concern |
//! |---|---|
//! | `server` | accepting, scarcity, the end |
//! | `open` | the connections that are open, and which of them may be closed |
//! | `threads` | what connections run on |
//! | `limits` | what a peer may take |
//! | `connection` | one thread: receive, answer, send, and how long each may take |
//! | `buffer` | what was received and not yet used |
//! | `output` | answers that are not sent yet |
//! | `head` | the head of a request, and how its body is delimited |
//! | `chunked` | the body sent in chunks |
//! | `request` | what a handler is asked |
//! | `handler` | what is to be given to the server |
//! | `response` | answers as bytes |
//! | `status` | what may become of a request |
//!
//! # Examples
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::sync::Arc;
//!
//! use uthread_httpd::{GreenThreads, Limits, Request, Response, Server, Status};
//!
//! fn hello(request: &Request<'_>) -> Response<'static> {
//!     match request.path {
//!         "/" => Response::text(Status::OK, "Hello, World!"),
//!         _ => Response::empty(Status::NOT_FOUND),
//!     }
//! }
//!
//! let address = ([127, 0, 0, 1], 0).into();
//! let server = Arc::new(Server::bind(address, Limits::default(), hello, GreenThreads::new())?);
//! let running = server.clone();
//! let runner = uthread::spawn(move || running.run());
//!
//! let mut client = TcpStream::connect(server.local_addr()?)?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert!(answer.ends_with("\r\n\r\nHello, World!"));
//! drop(client);
//!
//! server.stop();
//! runner.join().unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```

mod buffer;
mod chunked;
mod connection;
mod handler;
mod head;
mod limits;
mod open;
mod output;
mod request;
mod response;
mod server;
mod status;
mod threads;

pub use handler::Handler;
pub use limits::Limits;
pub use request::Request;
pub use response::Response;
pub use server::Server;
pub use status::Status;
pub use threads::{GreenThreads, InPlace, OsThreads, Threads};
