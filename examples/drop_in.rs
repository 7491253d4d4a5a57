//! A service in plain `std`, a thread per connection, of which one line was changed: the one that starts a thread.
//!
//! A store of keys and values, with a line per request (`SET key value`, `GET key`) and one per answer. Sockets, buffers,
//! locks and sleeps are `std`'s.
//!
//! ```text
//! $ cargo run --release --example drop_in
//! listening on 127.0.0.1:7001
//! $ cargo run --release --example drop_in -- --connections 10000
//! $ cargo run --release --example drop_in -- --connections 10000 --os-threads
//! ```
//!
//! With a number of connections it is put under load by a process of its own, and tells what it took.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

type Store = Mutex<HashMap<String, String>>;

/// A store of keys and values with a thread per connection.
#[derive(Clone, Parser)]
struct Args {
    /// Address to listen on; under load a port that the kernel chooses
    #[arg(long, default_value = "127.0.0.1:7001")]
    addr: SocketAddr,

    /// How long a look-up takes, in milliseconds
    #[arg(long, default_value_t = 5)]
    delay: u64,

    /// Use `std::thread`
    #[arg(long)]
    os_threads: bool,

    /// Put it under load with so many connections, and end
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=25_000))]
    connections: Option<u64>,

    /// Requests of each connection under load
    #[arg(long, default_value_t = 20)]
    requests: u64,

    /// Be the load: the program calls itself with this
    #[arg(long, hide = true)]
    client: Option<SocketAddr>,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    match (args.connections, args.client) {
        (Some(connections), Some(server)) => be_the_load(&args, connections, server)?,
        (Some(connections), None) => return serve_under_load(&args, connections),
        (None, _) => {
            let listener = TcpListener::bind(args.addr)?;
            println!("listening on {}", listener.local_addr()?);
            serve(&listener, &args)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

// ------------------------------------------------------------------------------------------------
// The service
// ------------------------------------------------------------------------------------------------

fn serve(listener: &TcpListener, args: &Args) -> io::Result<()> {
    let store = Arc::new(Store::default());
    let delay = Duration::from_millis(args.delay);
    for stream in listener.incoming() {
        let (stream, store) = (stream?, store.clone());
        let connection = move || {
            if let Err(error) = converse(&stream, &store, delay) {
                eprintln!("lost a connection: {error}");
            }
        };
        if args.os_threads {
            thread::spawn(connection); // what this line was before ..
        } else {
            uthread::spawn(connection); // .. and what was made of it
        }
    }
    Ok(())
}

fn converse(stream: &TcpStream, store: &Store, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let answer = match *line.splitn(3, ' ').collect::<Vec<_>>() {
            ["SET", key, value] => {
                store.lock().unwrap().insert(key.to_owned(), value.to_owned());
                "OK\n".to_owned()
            }
            ["GET", key] => {
                thread::sleep(delay); // as if it had to be fetched from somewhere
                match store.lock().unwrap().get(key) {
                    Some(value) => format!("VALUE {value}\n"),
                    None => "NONE\n".to_owned(),
                }
            }
            _ => "WHAT?\n".to_owned(),
        };
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------
// The load
// ------------------------------------------------------------------------------------------------

/// Serves the connections of another process, and tells what that took.
fn serve_under_load(args: &Args, connections: u64) -> io::Result<ExitCode> {
    let connections = raise_limit(connections)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let service = args.clone();
    thread::spawn(move || serve(&listener, &service));

    // Half of the descriptors are the clients', hence another process.
    let mut load = Command::new(std::env::current_exe()?)
        .args(["--client", &address.to_string()])
        .args(["--connections", &connections.to_string()])
        .args(["--requests", &args.requests.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Closed at the end of this function, by an error too, which ends the other process.
    let mut say = load.stdin.take().expect("it is piped");
    let mut tells = BufReader::new(load.stdout.take().expect("it is piped")).lines();
    let mut next = || tells.next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()));

    let connected = next()?;
    let threads_before = status("Threads")?;
    say.write_all(b"go\n")?;
    let rate = next()?;
    let threads = threads_before.max(status("Threads")?);
    let kind = if args.os_threads { "std::thread" } else { "uthread" };
    println!("{kind}: {connected}, {rate}");
    println!("OS threads of the server: {threads}");
    println!("memory of the server: {} MB", status("VmHWM")? / 1024);
    if !args.os_threads {
        let stats = uthread::stats();
        println!(
            "calls that parked their thread or were done at once: {}, that blocked a worker: {}",
            stats.interposed, stats.helper_moves
        );
    }
    say.write_all(b"end\n")?;
    drop(say);
    Ok(if load.wait()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has all connections send their requests at once, when told.
fn be_the_load(args: &Args, connections: u64, server: SocketAddr) -> io::Result<()> {
    let connections = raise_limit(connections)?;
    let mut clients = Vec::new();
    let mut latest = Duration::ZERO;
    for i in 0..connections {
        let began = Instant::now();
        let mut client = Client { i, stream: BufReader::new(TcpStream::connect(server)?) };
        client.stream.get_ref().set_nodelay(true)?;
        client.ask(&format!("SET key{i} value{i}\n"), "OK\n")?;
        latest = latest.max(began.elapsed());
        clients.push(client);
    }
    println!("{connections} connections (at most {latest:?} for one)");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;

    let start = Arc::new(Barrier::new(clients.len() + 1));
    let requests = args.requests;
    let threads: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let start = start.clone();
            uthread::spawn(move || {
                start.wait();
                client.converse(requests)
            })
        })
        .collect();
    start.wait();
    let began = Instant::now();
    // Kept until the end: all connections are to exist at the same time.
    let mut done = Vec::new();
    for thread in threads {
        done.push(thread.join().expect("a client does not panic")?);
    }
    let seconds = began.elapsed().as_secs_f64();
    let all = connections * requests;
    println!("{all} requests in {seconds:.2} s, {:.0}/s", all as f64 / seconds);
    io::stdin().read_line(&mut line)?;
    Ok(())
}

struct Client {
    i: u64,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn ask(&mut self, question: &str, answer: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(question.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line == answer {
            return Ok(());
        }
        Err(io::Error::other(format!("{line:?} instead of {answer:?}")))
    }

    /// Gets and sets its own key in turn.
    fn converse(mut self, requests: u64) -> io::Result<Client> {
        let key = format!("key{}", self.i);
        let mut value = format!("value{}", self.i);
        for n in 0..requests {
            if n % 2 == 0 {
                self.ask(&format!("GET {key}\n"), &format!("VALUE {value}\n"))?;
            } else {
                value = format!("value {} after {n}", self.i);
                self.ask(&format!("SET {key} {value}\n"), "OK\n")?;
            }
        }
        Ok(self)
    }
}

/// Raises the limit on descriptors as far as it takes and is allowed; for how many connections that is enough.
fn raise_limit(connections: u64) -> io::Result<u64> {
    /// For what is no connection: rings, standard streams.
    const OTHERS: u64 = 200;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = connections + OTHERS;
    if wanted <= soft {
        return Ok(connections);
    }
    // Beyond the hard limit with privileges only.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted.max(hard))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let (raised, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    eprintln!("limit on descriptors (RLIMIT_NOFILE): raised from {soft} to {raised}");
    let enough = raised.saturating_sub(OTHERS).min(connections);
    if enough < connections {
        eprintln!("that is enough for {enough} connections only");
    }
    Ok(enough)
}

/// A number from proc_pid_status(5), of this process.
fn status(field: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no {field} in /proc/self/status")))
}
