//! The external API as a process of this program.
//!
//! It must end with the service and not before: requests under way at the end still ask it. So it is out of reach of the
//! terminal's Ctrl-C, in a process group of its own, and ends when its standard input does, which the service holds: at
//! its normal end as well as at any other.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use uthread::Runtime;
use uthread_backend::api::{Latency, server};

/// What it says before its address.
const GREETING: &str = "listening on ";

/// The process, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Supplier {
    process: Child,
    url: String,
}

impl Supplier {
    /// Starts it on a free port.
    pub(crate) fn start(latency: Latency) -> io::Result<Supplier> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["api", "--latency", &latency.to_string()])
            // Where others look into the service.
            .env_remove("UTHREAD_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let stdout = process.stdout.take().expect("it is piped");
        let mut supplier = Supplier { process, url: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim_end().strip_prefix(GREETING) {
            Some(address) => supplier.url = format!("http://{address}"),
            None => return Err(io::Error::other("the external API does not start")),
        }
        Ok(supplier)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Supplier {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It takes a second at most to give up those whom it keeps waiting.
        let _ = self.process.wait();
    }
}

/// Is the external API, until the standard input ends.
pub(crate) fn be(address: SocketAddr, latency: Latency) -> io::Result<()> {
    let api = server::bind(address, latency)?;
    writeln!(io::stdout(), "{GREETING}{}", api.local_addr()?)?;
    let ending = Arc::clone(&api);
    std::thread::spawn(move || {
        // At its end, or if it cannot be read.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ending.stop();
    });
    let runtime = Runtime::builder().build()?;
    runtime.run(|| api.run());
    // Those who are still kept waiting have been cut off; the runtime would wait for them.
    std::mem::forget(runtime);
    Ok(())
}
