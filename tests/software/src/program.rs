//! Servers that are programs: Redis and PostgreSQL.
//!
//! Each is started for one test, on a free port of the loopback, in a directory of its own, and ends when it is dropped;
//! if the test ends without that, the kernel ends it (`PR_SET_PDEATHSIG`, which is bound to the thread that
//! started it: that must live as long).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a port is chosen anew because somebody else took it meanwhile.
const ATTEMPTS: usize = 5;

/// A program that runs, and its directory.
#[derive(Debug)]
struct Program {
    child: Child,
    /// Starts it again.
    command: Command,
    /// What ends it without leaving anything behind.
    end: Signal,
    /// Removed after the program has ended.
    directory: TempDir,
}

impl Program {
    /// Starts it; its messages go to the file `log` in its directory.
    fn start(mut command: Command, end: Signal, directory: TempDir) -> io::Result<Program> {
        let log = fs::File::create(directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec only prctl is called, which is a bare system call.
        unsafe {
            command.pre_exec(move || {
                match libc::prctl(libc::PR_SET_PDEATHSIG, end as libc::c_ulong) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            })
        };
        Ok(Program { child: command.spawn()?, command, end, directory })
    }

    /// Sends it a signal. It has not been waited for, so the number is still its own.
    fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal)
    }

    /// Waits until it answers; false if it ends instead.
    fn becomes_ready(&mut self, is_ready: impl Fn() -> bool) -> io::Result<bool> {
        let began = Instant::now();
        while !is_ready() {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("a server does not start: {}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let began = Instant::now();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(self.end);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a program at a free port, several times if somebody else takes the port meanwhile.
///
/// Whether it is ready is asked at its socket in its directory, which it opens when it has got the port: at the port
/// somebody else may answer.
fn at_free_port(
    what: &str,
    start: impl Fn(u16) -> io::Result<Program>,
    is_ready: impl Fn(&Path, u16) -> bool,
) -> io::Result<(Program, SocketAddr)> {
    let mut log = String::new();
    for _ in 0..ATTEMPTS {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut program = start(address.port())?;
        let directory = program.directory.path().to_owned();
        if program.becomes_ready(|| is_ready(&directory, address.port()))? {
            return Ok((program, address));
        }
        log = program.log();
    }
    Err(io::Error::other(format!("{what} ends at its start: {log}")))
}

/// Where a program is: in the search path, or in one of the other directories.
fn find(name: &str, elsewhere: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(elsewhere.iter().cloned())
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        // Not a macro: what those print is kept by the harness.
        let _ = io::Write::write_all(
            &mut io::stderr(),
            format!("skipped: there is no {name}\n").as_bytes(),
        );
    }
    found
}

/// A Redis server without a file of data.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    program: Program,
}

impl Redis {
    /// Starts one; `None`, and a line that says so, if the program is missing.
    ///
    /// # Panics
    ///
    /// It does not start.
    pub fn start() -> Option<Redis> {
        let server = find("redis-server", &[])?;
        let start = |port: u16| {
            let directory = TempDir::new()?;
            let mut command = Command::new(&server);
            command
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no", "--maxclients", "4000"])
                .args(["--unixsocket", "socket", "--dir"])
                .arg(directory.path());
            Program::start(command, Signal::SIGTERM, directory)
        };
        let is_ready = |directory: &Path, _| UnixStream::connect(directory.join("socket")).is_ok();
        let (program, address) =
            at_free_port("redis-server", start, is_ready).expect("Redis can be started");
        Some(Redis { address, program })
    }

    /// Where it is, for clients.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// The same by its socket in the file system.
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.program.directory.path().join("socket").display())
    }
}

/// A PostgreSQL server with an empty database, which asks for no password.
#[derive(Debug)]
pub struct Postgres {
    address: SocketAddr,
    program: Program,
}

/// A server none of whose processes runs, until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a> {
    _server: &'a Postgres,
    processes: Vec<Pid>,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for &process in &self.processes {
            let _ = kill(process, Signal::SIGCONT);
        }
    }
}

impl Postgres {
    /// Starts one for so many connections; `None`, and a line that says so, if the programs are missing.
    ///
    /// # Panics
    ///
    /// It does not start.
    pub fn start(connections: usize) -> Option<Postgres> {
        // Debian has them in a directory for each version.
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut directories: Vec<_> = versions.map(|v| v.path().join("bin")).collect();
        directories.sort();
        let initdb = find("initdb", &directories)?;
        let server = find("postgres", &directories)?;
        let start = |port: u16| {
            let directory = TempDir::new()?;
            let data = directory.path().join("data");
            let owner = Owner::of(directory.path())?;
            let mut command = Command::new(&initdb);
            command
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
                .args(["--no-sync", "-D"])
                .arg(&data)
                .stdout(Stdio::null());
            let status = owner.runs(&mut command, directory.path()).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("initdb: {status}")));
            }
            let mut command = Command::new(&server);
            command
                .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k"])
                .arg(directory.path())
                .args(["-N", &connections.to_string(), "-F", "-D"])
                .arg(&data);
            owner.runs(&mut command, directory.path());
            // At once: nothing is to be kept.
            Program::start(command, Signal::SIGQUIT, directory)
        };
        let (program, address) =
            at_free_port("postgres", start, is_postgres_ready).expect("PostgreSQL can be started");
        Some(Postgres { address, program })
    }

    /// Ends it without warning by this signal: `SIGQUIT`, which its processes take for one to leave everything as it is, or
    /// `SIGKILL`. What was committed stays.
    ///
    /// # Panics
    ///
    /// It has ended before.
    pub fn kill(&mut self, signal: Signal) {
        self.program.signal(signal).expect("it runs");
        self.program.child.wait().expect("it is a child of this process");
    }

    /// Starts it after its end, where it was; waits until it takes connections.
    ///
    /// # Panics
    ///
    /// It does not start.
    pub fn restart(&mut self) {
        let began = Instant::now();
        let (directory, port) = (self.program.directory.path().to_owned(), self.address.port());
        loop {
            let child = self.program.command.spawn().expect("it has been started before");
            self.program.child = child;
            let is_ready = || is_postgres_ready(&directory, port);
            if self.program.becomes_ready(is_ready).expect("it starts in time") {
                return;
            }
            // After SIGKILL, processes of its predecessor may be there for a moment, with which it would share memory.
            assert!(began.elapsed() < PATIENCE, "{}", self.program.log());
        }
    }

    /// Stops all its processes as they are: connections stay open, and nobody answers.
    ///
    /// # Panics
    ///
    /// It has ended before.
    pub fn freeze(&self) -> Frozen<'_> {
        let id = self.program.child.id();
        let mut frozen = Frozen { _server: self, processes: Vec::new() };
        let mut stop = |process| {
            frozen.processes.push(process);
            kill(process, Signal::SIGSTOP)
        };
        stop(Pid::from_raw(id as i32)).expect("it runs");
        // From now on there are no further ones; some may end just now.
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        for child in children.expect("it runs").split_whitespace() {
            let _ = stop(Pid::from_raw(child.parse().expect("a number")));
        }
        frozen
    }

    /// Where it is, for clients.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@{}/postgres", self.address)
    }
}

/// Whether it takes connections: it listens some time before it does, and answers with errors. The first message of a
/// session that was begun is about authentication (`R`).
fn is_postgres_ready(directory: &Path, port: u16) -> bool {
    use std::io::{Read, Write};
    let ask = || {
        let mut stream = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let start_up = b"\x00\x03\x00\x00user\0postgres\0\0";
        stream.write_all(&(start_up.len() as u32 + 4).to_be_bytes())?;
        stream.write_all(start_up)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        io::Result::Ok(kind == *b"R")
    };
    ask().unwrap_or(false)
}

/// Who runs a program that refuses to run as root.
struct Owner(Option<User>);

impl Owner {
    /// The caller, or, if that is root, somebody else, to whom the directory is given.
    fn of(directory: &Path) -> io::Result<Owner> {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        if !geteuid().is_root() {
            return Ok(Owner(None));
        }
        let user = match User::from_name("postgres")? {
            Some(user) => Some(user),
            None => User::from_name("nobody")?,
        };
        let user = user.ok_or_else(|| io::Error::other("there is no user but root"))?;
        chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        Ok(Owner(Some(user)))
    }

    /// Sets who runs it, and where.
    fn runs<'a>(&self, command: &'a mut Command, directory: &Path) -> &'a mut Command {
        if let Owner(Some(user)) = self {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.current_dir(directory)
    }
}
