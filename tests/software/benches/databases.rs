//! Redis and PostgreSQL through their unmodified blocking clients: green threads against OS threads.
//!
//! A thousand threads send a hundred questions to each. On both kinds of threads connections come from a pool of
//! `std`'s lock and condition, as in programs: a thousand processes of PostgreSQL's would be what is measured otherwise.
//! Rounds take turns, so that what else happens on the machine happens to both; medians count. The green threads have as
//! many workers as their count says, the OS threads all cores. Connections are made beforehand.
//!
//! `cargo bench -p uthread-software`, with `-- --quick` for fewer threads.

use std::process::ExitCode;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use postgres::NoTls;
use redis::Commands;
use uthread::Stats;
use uthread_software::harness::{Kind, runtime};
use uthread_software::program::{Postgres, Redis};

const WORKERS: usize = 2;
/// Connections to each server.
const CONNECTIONS: usize = 50;
/// One in so many calls may block a worker: who waits for a lock of malloc's, whose owner was interrupted, waits in the
/// kernel.
const CALLS_PER_BLOCKED: u64 = 1000;

/// Connections, for whoever takes one and gives it back.
struct Pool<C> {
    free: Mutex<Vec<C>>,
    returned: Condvar,
}

impl<C> Pool<C> {
    fn new(connect: impl FnMut() -> C) -> Pool<C> {
        let free = std::iter::repeat_with(connect).take(CONNECTIONS).collect();
        Pool { free: Mutex::new(free), returned: Condvar::new() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut C) -> T) -> T {
        let free = self.free.lock().unwrap();
        let mut free = self.returned.wait_while(free, |free| free.is_empty()).unwrap();
        let mut connection = free.pop().unwrap();
        drop(free);
        let result = f(&mut connection);
        self.free.lock().unwrap().push(connection);
        self.returned.notify_one();
        result
    }
}

struct Work {
    threads: usize,
    trips: usize,
    redis: Pool<redis::Connection>,
    postgres: Pool<(postgres::Client, postgres::Statement)>,
}

impl Work {
    /// One thread's: what it was told.
    fn job(&self, i: usize) -> (u64, i64) {
        let mut sums = (0, 0);
        for n in 0..self.trips {
            sums.0 += self.redis.with(|c| {
                let key = format!("{i}");
                let () = c.set(&key, i * n).unwrap();
                c.get::<_, u64>(&key).unwrap()
            });
            sums.1 += self.postgres.with(|(client, query)| {
                let number = (i + n) as i64;
                client.query_one(&*query, &[&number]).unwrap().get::<_, i64>(0)
            });
        }
        sums
    }

    fn round(&self, kind: Kind) -> (Duration, Vec<(u64, i64)>) {
        let began = Instant::now();
        let results = kind.all(self.threads, |i| self.job(i));
        (began.elapsed(), results)
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let check = std::env::args().any(|argument| argument == "--check");
    let (threads, trips, rounds) = if quick { (200, 10, 3) } else { (1000, 100, 5) };
    let Some((redis, postgres)) = Redis::start().zip(Postgres::start(CONNECTIONS + 10)) else {
        return ExitCode::SUCCESS;
    };
    let client = redis::Client::open(redis.url()).unwrap();
    let work = Work {
        threads,
        trips,
        redis: Pool::new(|| client.get_connection().unwrap()),
        postgres: Pool::new(|| {
            let mut c = postgres::Client::connect(&postgres.url(), NoTls).unwrap();
            let query = c.prepare("SELECT $1::bigint * 3").unwrap();
            (c, query)
        }),
    };
    let runtime = runtime(WORKERS);
    let (mut os, mut green) = (Vec::new(), Vec::new());
    let mut too_many = false;
    println!("| round | OS threads | green threads | moved to helpers | parked or done at once |");
    println!("|---|---|---|---|---|");
    for round in 0..rounds {
        let (time, expected) = work.round(Kind::Os);
        os.push(time);
        let before = runtime.stats();
        let (time, results) = runtime.run(|| work.round(Kind::Green));
        green.push(time);
        assert_eq!(results, expected, "green threads were told something else");
        let Stats { helper_moves, interposed, .. } = runtime.stats().since(&before);
        too_many |= helper_moves > interposed / CALLS_PER_BLOCKED;
        let (os, green) = (os[round], green[round]);
        println!("| {round} | {os:.2?} | {green:.2?} | {helper_moves} | {interposed} |");
    }
    let (os, green) = (median(&mut os), median(&mut green));
    // A write and a read of Redis, a query of PostgreSQL.
    let all = (threads * trips * 3) as f64;
    let ratio = os.as_secs_f64() / green.as_secs_f64();
    println!();
    println!(
        "medians: {:.0}/s on OS threads, {:.0}/s on green threads, ratio {ratio:.2}",
        all / os.as_secs_f64(),
        all / green.as_secs_f64()
    );
    let goals = [
        (ratio >= 1.0, "green threads do at least as much as OS threads".to_owned()),
        (
            !uthread::interposed() || !too_many,
            format!("in no round more than one in {CALLS_PER_BLOCKED} calls blocks a worker"),
        ),
    ];
    for (met, goal) in &goals {
        println!("{}: {goal}", if *met { "met" } else { "MISSED" });
    }
    let missed = check && goals.iter().any(|(met, _)| !met);
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
