//! The processes of the lab: the service in each of its ways, and the external service.
//!
//! **Problem.** What one way leaves behind (threads, warm memory, a database's cache, sockets) must not be found by the
//! next, and what a process uses must be its alone. And whatever happens to the lab, nothing may go on running.
//!
//! **Choice.** The program calls itself, with a hidden argument that tells a [`Role`]. A child says where it listens,
//! then answers orders, a line each. It ends when its standard input does, or when it is dropped, or, by the kernel, with
//! the thread that started it (`PR_SET_PDEATHSIG`): `main`'s.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::usage::{Counted, Usage};
use crate::way::Role;

/// How long a child may take to answer. It may have ten thousand threads to look at.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child. It is killed when this is dropped.
pub(crate) struct Child {
    process: process::Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Child {
    pub(crate) fn start(role: &Role) -> io::Result<Child> {
        let mut process = Command::new("/proc/self/exe") // also if the file was replaced meanwhile
            .args(["--role", &serde_json::to_string(role)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut child = Child { process, orders, answers, addr: nowhere };
        child.addr = child.answer()?.parse().map_err(io::Error::other)?;
        Ok(child)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has used up to now.
    pub(crate) fn usage(&mut self) -> io::Result<Usage> {
        writeln!(self.orders, "usage")?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    fn answer(&mut self) -> io::Result<String> {
        // A line comes in one piece, so nothing is left of the one before.
        let mut waited = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).expect("it is short");
        if poll(&mut waited, patience)? == 0 {
            return Err(io::Error::other(format!("a process of the lab is mute for {PATIENCE:?}")));
        }
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("a process of the lab has ended early")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has not been waited for, so the number is still its own.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's side: to be called first.
pub(crate) fn end_with_parent() -> io::Result<()> {
    let parent = getppid();
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before that.
    if getppid() != parent {
        process::exit(1);
    }
    Ok(())
}

/// The child's side: says where it listens, and answers orders on a thread of its own until there is nobody to give any.
pub(crate) fn answer_orders(
    addr: SocketAddr,
    counted: impl Fn() -> Counted + Send + 'static,
) -> io::Result<()> {
    writeln!(io::stdout(), "{addr}")?;
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            let usage = Usage::now(counted()).and_then(|usage| Ok(serde_json::to_string(&usage)?));
            match usage {
                Ok(usage) => println!("{usage}"),
                Err(error) => {
                    eprintln!("cannot tell what is used: {error}");
                    process::exit(1);
                }
            }
        }
        process::exit(0);
    })?;
    Ok(())
}
