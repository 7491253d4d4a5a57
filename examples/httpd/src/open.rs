//! The connections that are open, and which of them may be closed.
//!
//! # Problem
//! Descriptors are the scarcest resource of a server, and most of them belong to clients that say nothing at present.
//! When they run out, those who would say something wait outside.
//!
//! # Alternatives
//! - *A short idle time for all.* Clients pay for new connections although there is room.
//! - *Close who has been idle for the longest.* That takes a reading of the clock, and an ordered queue, per request, to
//!   be prepared for what mostly never happens.
//! - *Close anybody who is idle.* Often someone whose next request is under way: a client cannot know whether a
//!   request took effect that met a closed connection.
//!
//! # Choice
//! A second chance. A connection counts how often it has begun and ended to be idle. While there is no room, the
//! acceptor looks at all of them every [`SWEEP`] and notes the counts; who is idle, and has been noted with the same
//! count before, is closed. So scarcity shortens the idle time to between one sweep and two, and costs nothing else.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uthread::Thread;
use uthread::net::TcpStream;

/// How long a connection may be idle at least while others wait for its place: longer than a request travels.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// The connections that have a thread.
#[derive(Default)]
pub(crate) struct Open(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    waiter: Option<Waiter>,
}

struct Entry {
    peer: Arc<Peer>,
    /// The peer's phase when it was last looked at.
    noted: u32,
}

/// Who waits for the table to have at most so many entries.
struct Waiter {
    thread: Thread,
    most: usize,
}

/// The socket of a connection, as shared by its thread and the server.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// How often the connection has begun and ended to be idle; written by its thread only. Odd while nothing is lost
    /// if the socket is shut down for reading.
    phase: AtomicU32,
}

impl Open {
    pub(crate) fn insert(&self, number: u64, stream: TcpStream) -> Arc<Peer> {
        let peer = Arc::new(Peer { stream, phase: AtomicU32::new(0) });
        let entry = Entry { peer: Arc::clone(&peer), noted: 0 };
        self.table().entries.insert(number, entry);
        peer
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut table = self.table();
        table.entries.remove(&number);
        if let Some(waiter) = &table.waiter
            && table.entries.len() <= waiter.most
        {
            waiter.thread.unpark();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.table().entries.len()
    }

    /// Closes the connections that have been idle since the last call.
    pub(crate) fn sweep(&self) {
        for Entry { peer, noted } in self.table().entries.values_mut() {
            let phase = peer.phase.load(SeqCst);
            if is_idle(phase) && *noted == phase {
                peer.shut_down(Shutdown::Read);
            }
            *noted = phase;
        }
    }

    /// Lets connections that are idle read what has arrived and no more.
    pub(crate) fn close_idle(&self) {
        for Entry { peer, .. } in self.table().entries.values() {
            if is_idle(peer.phase.load(SeqCst)) {
                peer.shut_down(Shutdown::Read);
            }
        }
    }

    /// Ends all connections in the midst of whatever they do.
    pub(crate) fn cut_off(&self) {
        for Entry { peer, .. } in self.table().entries.values() {
            peer.shut_down(Shutdown::Both);
        }
    }

    /// Waits until at most so many connections are open; says whether that came true in time.
    pub(crate) fn wait_for_at_most(&self, most: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.table().waiter = Some(Waiter { thread: uthread::current(), most });
        let in_time = loop {
            if self.count() <= most {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            uthread::park_timeout(left);
        };
        self.table().waiter = None;
        in_time
    }

    /// A panic elsewhere cannot leave the table half-changed, so a poisoned lock is as good as any.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Declares that the connection may be ended: what comes next is a read, between requests.
    ///
    /// If `is_stopping`, asked after that, that read gives what has arrived already, or end of file.
    pub(crate) fn enter_idle(&self, is_stopping: impl FnOnce() -> bool) {
        self.next_phase();
        if is_stopping() {
            self.shut_down(Shutdown::Read);
        }
    }

    /// Declares that a request is in flight.
    pub(crate) fn leave_idle(&self) {
        self.next_phase();
    }

    fn next_phase(&self) {
        self.phase.store(self.phase.load(Relaxed).wrapping_add(1), SeqCst);
    }

    /// Shuts down, if the peer has not: an error says that there is nothing left to shut down.
    fn shut_down(&self, how: Shutdown) {
        let _ = self.stream.shutdown(how);
    }
}

fn is_idle(phase: u32) -> bool {
    phase % 2 == 1
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net;

    use super::*;

    #[test]
    fn a_sweep_closes_who_was_idle_throughout() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Open::default();
        let _clients = [0, 1, 2].map(|number| {
            let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let stream = TcpStream::from(listener.accept().unwrap().0);
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            (client, open.insert(number, stream))
        });
        let [(_, idle), (_, active), (_, busy)] = &_clients;
        let is_closed = |peer: &Peer| (&peer.stream).read(&mut [0]).is_ok_and(|count| count == 0);
        idle.enter_idle(|| false);
        active.enter_idle(|| false);
        open.sweep();
        assert!(!is_closed(idle), "it has a second chance");
        active.leave_idle();
        active.enter_idle(|| false);
        open.sweep();
        assert!(is_closed(idle) && !is_closed(active) && !is_closed(busy));
        open.sweep();
        assert!(is_closed(active) && !is_closed(busy));
    }

    #[test]
    fn who_waits_for_room_is_woken_when_there_is_some() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let open = Open::default();
        open.insert(7, TcpStream::from(listener.accept().unwrap().0));
        assert!(!open.wait_for_at_most(0, Duration::ZERO));
        assert!(open.wait_for_at_most(1, Duration::ZERO));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| open.wait_for_at_most(0, Duration::from_secs(30)));
            while open.table().waiter.is_none() {
                std::thread::yield_now();
            }
            open.remove(7);
            assert!(waiting.join().unwrap());
        });
    }
}
