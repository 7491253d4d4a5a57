//! Records a small crowd and writes what the scheduler did to a file, to be opened at <https://ui.perfetto.dev>.
//!
//! ```text
//! cargo run --release --features perfetto --example trace -- /tmp/crowd.pftrace
//! ```

use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::mpsc;
use std::time::Duration;

use uthread::{Builder, Runtime};

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "crowd.pftrace".to_owned());
    let runtime = Runtime::builder().workers(2).trace_events(1 << 16).build()?;
    runtime.run(crowd);
    let (trace, stats) = (runtime.trace(), runtime.stats());
    trace.write_perfetto(BufWriter::new(File::create(&path)?))?;
    println!("events {}", trace.events().len());
    println!("overwritten {}", trace.overwritten());
    println!("switches {}", stats.switches);
    println!("file {path}");
    Ok(())
}

/// Threads that compute, wait for each other, sleep, and block in the kernel.
fn crowd() {
    uthread::scope(|s| {
        let named = |name: &str| Builder::new().name(name.to_owned());
        let player = |own: &str| {
            named(own).spawn_scoped(s, || (0..50).for_each(|_| uthread::park())).unwrap()
        };
        let (ping, pong) = (player("ping"), player("pong"));
        named("referee")
            .spawn_scoped(s, move || {
                while !ping.is_finished() || !pong.is_finished() {
                    ping.thread().unpark();
                    pong.thread().unpark();
                    uthread::sleep(Duration::from_micros(100));
                }
            })
            .unwrap();
        let (sender, receiver) = mpsc::channel();
        named("blocked").spawn_scoped(s, move || receiver.recv().unwrap()).unwrap();
        named("hog")
            .spawn_scoped(s, || {
                let sum = (0..20_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
                std::hint::black_box(sum);
            })
            .unwrap();
        named("sleeper")
            .spawn_scoped(s, move || {
                uthread::sleep(Duration::from_millis(10));
                sender.send(()).unwrap();
            })
            .unwrap();
    });
}
