//! Load for a server of HTTP on loopback: so many connections, each with one request at a time, from one OS thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, setsid, write};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

/// Connections to a server.
pub(crate) struct Client {
    connections: Vec<TcpStream>,
    ready: Epoll,
    /// Bytes of an answer.
    answer: usize,
}

impl Client {
    /// Each connection makes one request already.
    pub(crate) fn connect(addr: SocketAddr, connections: usize) -> io::Result<Client> {
        let ready = Epoll::new(EpollCreateFlags::empty())?;
        let mut client = Client { connections: Vec::with_capacity(connections), ready, answer: 0 };
        for i in 0..connections {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            // The answer is short and comes in one piece.
            stream.write_all(REQUEST)?;
            client.answer = stream.read(&mut [0; 4096])?;
            client.ready.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
            client.connections.push(stream);
        }
        Ok(client)
    }

    /// Makes requests for so long; how many were answered, and in which time.
    pub(crate) fn load(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        let mut buffer = [0; 4096];
        let mut events = vec![EpollEvent::empty(); self.connections.len()];
        let start = Instant::now();
        for mut stream in &self.connections {
            stream.write_all(REQUEST)?;
        }
        let (mut answers, mut open) = (0_u64, self.connections.len());
        while open > 0 {
            let count = self.ready.wait(&mut events, EpollTimeout::from(10_000_u16))?;
            let goes_on = start.elapsed() < time;
            for event in &events[..count] {
                let mut stream = &self.connections[event.data() as usize];
                let length = stream.read(&mut buffer)?;
                assert_eq!(length, self.answer, "an answer in pieces, or none");
                answers += 1;
                if goes_on { stream.write_all(REQUEST)? } else { open -= 1 }
            }
            assert!(count > 0, "no answer for ten seconds");
        }
        Ok((answers, start.elapsed()))
    }
}

/// Gives the calling process, as long as it is the calling thread only, the highest priority, and a session of its own:
/// sessions have priorities, too (autogroups in sched(7)). Where that is not allowed, others may take its core, which
/// the kernel tells.
///
/// May be called between fork and exec.
pub(crate) fn take_priority() {
    let _ = setsid();
    // SAFETY: the call has no preconditions.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let group = open(c"/proc/self/autogroup", OFlag::O_WRONLY, Mode::empty());
    let _ = group.and_then(|group| write(group, b"-20"));
}

/// Puts the calling thread on the second core, away from the servers, if there is one.
pub(crate) fn pin_to_second() {
    let mut second = CpuSet::new();
    second.set(1).expect("sets have more than two places");
    if sched_setaffinity(Pid::from_raw(0), &second).is_err() {
        eprintln!("load and server share a core: there is no second one");
    }
}
