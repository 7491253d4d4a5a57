//! The connection to the process that is looked at.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use uthread::inspect::protocol::{
    Answer, Hello, Request, Snapshot, SnapshotRequest, Stack, VERSION,
};

/// A server that speaks the same language.
pub(crate) struct Client {
    answers: BufReader<UnixStream>,
}

impl Client {
    /// # Errors
    ///
    /// Nobody listens there, or speaks another version of the protocol, or this user may not connect.
    pub(crate) fn connect(path: &Path) -> io::Result<Client> {
        let explain = |e: io::Error| {
            let hint = match e.kind() {
                io::ErrorKind::ConnectionRefused => "; its process has ended",
                io::ErrorKind::NotFound => {
                    "; was the process started with UTHREAD_SOCKET, and built with the feature `inspect`?"
                }
                _ => "",
            };
            io::Error::new(e.kind(), format!("cannot connect to {}: {e}{hint}", path.display()))
        };
        let stream = UnixStream::connect(path).map_err(explain)?;
        let mut client = Client { answers: BufReader::new(stream) };
        let Hello { protocol, version, .. } = client.hello()?;
        if protocol != VERSION {
            return Err(io::Error::other(format!(
                "the process has uthread {version}, which speaks version {protocol} of the protocol; this program speaks {VERSION}"
            )));
        }
        Ok(client)
    }

    fn hello(&mut self) -> io::Result<Hello> {
        match self.ask(&Request::Hello {})? {
            Answer::Hello(hello) => Ok(hello),
            other => Err(unexpected(other)),
        }
    }

    /// # Errors
    ///
    /// The server is gone, or cannot answer.
    pub(crate) fn snapshot(&mut self, request: &SnapshotRequest) -> io::Result<Snapshot> {
        match self.ask(&Request::Snapshot(request.clone()))? {
            Answer::Snapshot(snapshot) => Ok(snapshot),
            other => Err(unexpected(other)),
        }
    }

    /// # Errors
    ///
    /// As for [`Client::snapshot`].
    pub(crate) fn stack(&mut self, id: u64) -> io::Result<Stack> {
        match self.ask(&Request::Stack { id })? {
            Answer::Stack(stack) => Ok(stack),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the process has ended");
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // If it was refused, there is an answer to be read nevertheless.
        let sent = self.answers.get_mut().write_all(&line);
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(0) => Err(gone()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(gone()),
            Err(e) => Err(e),
            Ok(_) => match serde_json::from_str(&answer)? {
                Answer::Error { message } => Err(io::Error::other(message)),
                answer => sent.map(|()| answer),
            },
        }
    }
}

fn unexpected(answer: Answer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer to another question: {answer:?}"))
}
