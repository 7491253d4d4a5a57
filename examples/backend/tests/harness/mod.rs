//! The program as its clients and its operators see it: processes behind sockets.
//!
//! `cargo test` builds the examples first; so does `cargo build -p uthread-backend --example backend`, which a run of one
//! file of tests alone needs.

#![allow(dead_code, reason = "each file of tests uses a part")]

pub(crate) mod load;
pub(crate) mod wire;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Response;
use uthread_software::program::Postgres;

/// When to give up on something that should take no time at all. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any test, in milliseconds.
pub(crate) const LONG: &str = "600000";
/// However busy the machine is, nothing takes too long for the service.
pub(crate) const PATIENT: [&str; 8] = [
    "--api-timeout",
    LONG,
    "--api-connect-timeout",
    LONG,
    "--database-timeout",
    LONG,
    "--turn-timeout",
    LONG,
];

/// Little work, and an API that answers soon: what most tests want.
const QUICK: &[&str] = &["--order-work", "1", "--latency", "0-1"];

/// Where cargo puts examples, seen from where it puts tests: beside the folder of this executable.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let example = profile.join("examples/backend");
    assert!(example.exists(), "{} is missing: cargo build --example backend", example.display());
    example
}

/// The example, on SQLite unless it is told otherwise.
fn program() -> Command {
    let mut program = Command::new(example());
    program.env_remove("DATABASE_URL");
    program
}

/// What it says on stderr when it does not start.
pub(crate) fn failure(arguments: &[&str]) -> String {
    let output = program().args(QUICK).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A process of the example, killed if it is dropped before it has ended.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut process = Process { child, stdout, address: String::new() };
        let mut line = String::new();
        process.stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ");
        process.address = address.unwrap_or_else(|| panic!("it does not start: {line}")).to_owned();
        process
    }

    fn signal(&self, signal: Signal) {
        // It has not been waited for, so the number is still its own.
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service, as a process, with its files in a directory of its own.
pub(crate) struct Backend {
    process: Process,
    pub(crate) client: Client,
    pub(crate) directory: TempDir,
}

impl Backend {
    /// With these arguments, besides quick defaults, on SQLite unless they name another database.
    pub(crate) fn start(arguments: &[&str]) -> Backend {
        Backend::start_as(program().args(QUICK).args(arguments))
    }

    /// So, on this PostgreSQL, which the environment names.
    pub(crate) fn start_on(server: &Postgres, arguments: &[&str]) -> Backend {
        let mut command = program();
        command.env("DATABASE_URL", server.url());
        Backend::start_as(command.args(QUICK).args(arguments))
    }

    /// With an API that is told how to behave.
    pub(crate) fn start_with(api: &Api, arguments: &[&str]) -> Backend {
        let mut command = program();
        Backend::start_as(command.args(["--order-work", "1", "--api", &api.url()]).args(arguments))
    }

    /// So, in a process that may have so many descriptors.
    pub(crate) fn start_within(descriptors: usize, api: &Api, arguments: &[&str]) -> Backend {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n $0 && exec \"$@\""]).arg(descriptors.to_string());
        command.env_remove("DATABASE_URL").arg(example());
        command.args(["--order-work", "1", "--api", &api.url()]);
        Backend::start_as(command.args(arguments))
    }

    fn start_as(command: &mut Command) -> Backend {
        let directory = TempDir::new().unwrap();
        command.args(["--addr", "127.0.0.1:0", "--directory"]);
        let process = Process::start(command.arg(directory.path()));
        let client = Client::of(&process.address);
        Backend { process, client, directory }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.process.address
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.child.id())).unwrap().count()
    }

    /// Lets it have so many descriptors, of those that it was allowed at its start; it keeps what it has.
    pub(crate) fn limit_descriptors(&self, most: u64) {
        let process = rustix::process::Pid::from_child(&self.process.child);
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let current = Some(maximum.map_or(most, |maximum| most.min(maximum)));
        prlimit(Some(process), Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }

    /// CPU time that it has taken.
    pub(crate) fn cpu_time(&self) -> Duration {
        let clock = clock_getcpuclockid(Pid::from_raw(self.process.child.id() as i32)).unwrap();
        clock.now().unwrap().into()
    }

    /// The newest sample of telemetry.
    pub(crate) fn sample(&self) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let samples = self.client.get("/telemetry?samples=1").json();
            if let Some(sample) = samples.get(0) {
                return sample.clone();
            }
            assert!(began.elapsed() < PATIENCE, "there are no samples");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until telemetry shows this number.
    pub(crate) fn await_sample(&self, name: &str, number: u64) {
        let began = Instant::now();
        while self.sample()[name] != number {
            assert!(began.elapsed() < PATIENCE, "{name} does not become {number}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end, which has been asked for; what it told at last.
    pub(crate) fn ended(mut self) -> Ended {
        let mut told = String::new();
        self.process.stdout.read_to_string(&mut told).unwrap();
        let status = self.process.child.wait().unwrap();
        assert!(status.success(), "{status}: {told}");
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        let mut log = String::new();
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "log") {
                log += &std::fs::read_to_string(file).unwrap();
            }
        }
        Ended { told, log }
    }

    /// Ends it.
    pub(crate) fn end(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.ended()
    }
}

/// What is left of a service.
#[derive(Debug)]
pub(crate) struct Ended {
    told: String,
    pub(crate) log: String,
}

impl Ended {
    /// The counter of this name.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let value = self.told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.told)).parse().unwrap()
    }

    /// The address of the external API that it had.
    pub(crate) fn api_address(&self) -> &str {
        let (_, rest) = self.told.split_once("the external API is at http://").unwrap();
        rest.split(';').next().unwrap()
    }
}

/// The external API, as a process.
pub(crate) struct Api(Process);

impl Api {
    pub(crate) fn start() -> Api {
        Api::start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> Api {
        Api(Process::start(program().args(["api", "--latency", "0-1", "--addr", address])))
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.0.signal(Signal::SIGKILL);
        self.0.child.wait().unwrap();
    }

    /// Starts it after its end, where it was.
    pub(crate) fn restart(&mut self) {
        *self = Api::start_at(&self.0.address);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Sets `latency` or `fault`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let control = serde_json::json!({ name: value }).to_string();
        let answer = Client::of(&self.0.address).post("/control", control);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A client of one address.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

/// What it was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    fn of(address: &str) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        Client { agent: config.into(), url: format!("http://{address}") }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        Answer::of(self.agent.get(format!("{}{target}", self.url)).call().unwrap())
    }

    pub(crate) fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.try_post(target, body).expect("an answer")
    }

    /// An answer, unless there is none.
    pub(crate) fn try_post(&self, target: &str, body: impl AsRef<[u8]>) -> Option<Answer> {
        let request = self.agent.post(format!("{}{target}", self.url));
        request.send(body.as_ref()).ok().map(Answer::of)
    }

    /// Asks what is to be refused; the status and the reason.
    pub(crate) fn refusal(&self, target: &str, body: impl AsRef<[u8]>) -> (u16, String) {
        let answer = self.post(target, body);
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    }
}

impl Answer {
    fn of(mut response: Response<ureq::Body>) -> Answer {
        let field = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
        Answer {
            status: response.status().as_u16(),
            retry_after: field("Retry-After"),
            content_type: field("Content-Type").unwrap_or_default(),
            body: response.body_mut().read_to_vec().unwrap(),
        }
    }

    /// That it is one of these errors, in full.
    pub(crate) fn refuses_by_one_of(&self, statuses: &[u16]) {
        assert!(statuses.contains(&self.status), "{self:?}");
        assert!(self.json()["error"].is_string(), "{self:?}");
        assert_eq!(self.retry_after.is_some(), self.status == 503, "{self:?}");
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
