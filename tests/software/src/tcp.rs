//! Servers that are threads of the test.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::Kind;

/// A server with a thread per connection, in the plainest way. When it is dropped it takes no more connections; those that
/// it has go on until their clients close them.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Starts one on a free port of the loopback, with threads of this kind.
    ///
    /// # Panics
    ///
    /// There is no port.
    pub fn start(kind: Kind, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let over = Arc::new(AtomicBool::new(false));
        let server = Server { address, over: over.clone() };
        let serve = Arc::new(serve);
        kind.spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let serve = serve.clone();
                kind.spawn(move || serve(stream));
            }
        });
        server
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// As `TcpStream::connect`.
    pub fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for a connection, and looks then.
        let _ = self.connect();
    }
}
