//! `tungstenite`, both sides.

use tungstenite::{Message, accept, client};
use uthread_software::harness::{Comparison, Kind};
use uthread_software::tcp::Server;

const THREADS: usize = 300;
const MESSAGES: usize = 20;

#[test]
fn hundreds_of_clients_get_an_echo() {
    let work = |kind: Kind| {
        let server = Server::start(kind, |stream| {
            let mut socket = accept(stream).unwrap();
            loop {
                match socket.read() {
                    Ok(m @ (Message::Text(_) | Message::Binary(_))) => socket.send(m).unwrap(),
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => break,
                    Err(e) => panic!("{e}"),
                }
            }
        });
        let url = format!("ws://{}/", server.address());
        kind.all(THREADS, |i| {
            let (mut socket, _) = client(&url, server.connect().unwrap()).unwrap();
            let mut answers = Vec::new();
            for n in 0..MESSAGES {
                let message = match n % 3 {
                    0 => Message::text("ß".repeat(n * i)),
                    1 => Message::binary(vec![n as u8; n * i]),
                    _ => Message::Ping(vec![n as u8; n].into()),
                };
                socket.send(message).unwrap();
                answers.push(match socket.read().unwrap() {
                    Message::Text(text) => (text.chars().filter(|c| *c == 'ß').count(), "text"),
                    Message::Binary(bytes) => (bytes.len(), "bytes"),
                    Message::Pong(bytes) => (bytes.len(), "pong"),
                    other => panic!("{other:?}"),
                });
            }
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
            answers
        })
    };
    let answers = Comparison::of_calls((MESSAGES * THREADS) as u64).run(work);
    assert_eq!(answers[10][3..6], [(30, "text"), (40, "bytes"), (5, "pong")]);
}
