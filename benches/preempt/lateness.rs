//! How late threads run that wake up among hogs.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use uthread::Runtime;

use crate::common::{Goal, pin_to, quantile, spin, stolen, table};

const PERIOD: Duration = Duration::from_millis(1);
/// No measurement takes longer than this, however late threads are.
const LIMIT: Duration = Duration::from_secs(6);

/// How late each of so many sleeps of a millisecond ends, in nanoseconds, sorted.
fn naps(wakes: usize, sleep: impl Fn(Duration)) -> Vec<u64> {
    let (start, mut late) = (Instant::now(), Vec::with_capacity(wakes));
    while late.len() < wakes && start.elapsed() < LIMIT {
        let before = Instant::now();
        sleep(PERIOD);
        late.push((before.elapsed().saturating_sub(PERIOD)).as_nanos() as u64);
    }
    late.sort_unstable();
    late
}

/// What a server with an echo of one byte makes of a client's request each millisecond: round trips, sorted.
fn round_trips(wakes: usize, address: std::net::SocketAddr) -> io::Result<Vec<u64>> {
    let mut peer = std::net::TcpStream::connect(address)?;
    peer.set_nodelay(true)?;
    let (start, mut times) = (Instant::now(), Vec::with_capacity(wakes));
    while times.len() < wakes && start.elapsed() < LIMIT {
        std::thread::sleep(PERIOD);
        let before = Instant::now();
        peer.write_all(&[1])?;
        peer.read_exact(&mut [0])?;
        times.push(before.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times)
}

fn serve(mut connection: impl Read + Write) {
    let mut byte = [0];
    while connection.read(&mut byte).is_ok_and(|n| n == 1) && connection.write_all(&byte).is_ok() {}
}

/// Naps and echoes of green threads among hogs.
fn green(workers: usize, hogs: usize, wakes: usize) -> io::Result<[Vec<u64>; 2]> {
    pin_to(workers)?;
    let runtime = Runtime::builder().workers(workers).build()?;
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..hogs {
        let over = over.clone();
        runtime.spawn(move || spin(&over));
    }
    let late = runtime.spawn(move || naps(wakes, uthread::sleep)).join().unwrap();
    let listener = uthread::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    runtime.spawn(move || serve(listener.accept().unwrap().0));
    // The client is on all cores.
    pin_to(2)?;
    let echoes = round_trips(wakes / 2, address)?;
    over.store(true, Relaxed);
    Ok([late, echoes])
}

/// The same with OS threads.
fn os(cores: usize, hogs: usize, wakes: usize) -> io::Result<[Vec<u64>; 2]> {
    pin_to(cores)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..hogs {
            s.spawn(|| spin(&over));
        }
        let late = s.spawn(|| naps(wakes, std::thread::sleep)).join().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        s.spawn(move || serve(listener.accept().unwrap().0));
        pin_to(2)?;
        let echoes = round_trips(wakes / 2, address);
        over.store(true, Relaxed);
        Ok([late, echoes?])
    })
}

/// Reads one byte by a system call of which the runtime does not hear.
fn read_byte(file: &impl AsRawFd) {
    let mut byte = 0_u8;
    // SAFETY: the pointer is to one byte. An interruption is an error.
    while unsafe { libc::syscall(libc::SYS_read, file.as_raw_fd(), &raw mut byte, 1) } != 1 {}
}

/// How long the others of a worker wait when one of them blocks in a raw read: at first, and afterwards.
fn blocked_read() -> io::Result<[u64; 2]> {
    pin_to(1)?;
    let runtime = Runtime::builder().workers(1).build()?;
    let (reader, mut writer) = io::pipe()?;
    Ok(runtime.run(move || {
        let blocked = uthread::spawn(move || read_byte(&reader));
        let mut gaps = [0, 0];
        for (gap, time) in gaps.iter_mut().zip([50, 200]) {
            let (start, mut last) = (Instant::now(), Instant::now());
            while start.elapsed() < Duration::from_millis(time) {
                uthread::yield_now();
                *gap = (*gap).max(last.elapsed().as_nanos() as u64);
                last = Instant::now();
            }
        }
        writer.write_all(&[0]).unwrap();
        blocked.join().unwrap();
        gaps
    }))
}

pub(crate) fn measure(wakes: usize) -> io::Result<Vec<Goal>> {
    pin_to(1)?;
    let stolen = stolen(Duration::from_secs(1)) as f64 / 1e3;
    println!("the machine's own largest gap on an idle core in a second: {stolen:.0} µs\n");
    let mut rows = table(&["µs late", "workers", "hogs", "p50", "p99", "p99.9", "max", "served"]);
    let mut goals = Vec::new();
    for workers in [1, 2] {
        for hogs in [0, 1, 4] {
            let green = green(workers, hogs, wakes)?;
            let os = os(workers, hogs, wakes)?;
            let us = |values: &[u64], part| quantile(values, part) as f64 / 1e3;
            if workers == 1 && hogs == 4 {
                let (p99, max) = (us(&green[0], 0.99), us(&green[0], 1.0));
                let theirs = us(&os[0], 0.99);
                goals.push(Goal {
                    text: format!(
                        "p99 lateness is at most 300 µs and OS threads': {p99:.0}, {theirs:.0}"
                    ),
                    met: p99 <= 300.0 && p99 <= theirs,
                });
                goals.push(Goal {
                    text: format!("nobody is later than slice + 1 ms + stolen time: {max:.0} µs"),
                    met: max <= 3000.0 + stolen,
                });
            }
            let kinds = [("sleep, green", &green[0]), ("sleep, OS", &os[0])];
            let echoes = [("echo, green", &green[1]), ("echo, OS", &os[1])];
            for (name, values) in kinds.into_iter().chain(echoes) {
                let mut row = vec![name.to_owned(), workers.to_string(), hogs.to_string()];
                row.extend([0.5, 0.99, 0.999, 1.0].map(|q| format!("{:.0}", us(values, q))));
                row.push(values.len().to_string());
                rows.add_row(row);
            }
        }
    }
    println!("{rows}\n");
    let [first, after] = blocked_read()?.map(|ns| ns as f64 / 1e6);
    println!(
        "a raw blocking read keeps its worker's others waiting for {first:.1} ms once, then at most {after:.1} ms\n"
    );
    goals.push(Goal {
        text: format!("a raw blocking read delays others by at most 10 ms once: {first:.1} ms"),
        met: first <= 10.0 + stolen / 1e3 && after <= 1.0 + stolen / 1e3,
    });
    Ok(goals)
}
