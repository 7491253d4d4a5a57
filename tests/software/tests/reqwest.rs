//! `reqwest`'s blocking client: an OS thread of its own does the work, and the callers wait for it.

use reqwest::blocking::Client;
use uthread_software::harness::{Comparison, Kind};
use uthread_software::http;
use uthread_software::tcp::Server;

const THREADS: usize = 200;

#[test]
fn hundreds_of_threads_share_a_client() {
    let work = |kind: Kind| {
        // A client that has got its answers goes without a word.
        let server = Server::start(kind, |stream| drop(http::echo(stream)));
        let client = Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}", server.address());
        kind.all(THREADS, |i| {
            let ask = |n: usize| {
                let body = "ab".repeat(n * 1000 + i);
                client.post(format!("{url}/{i}/{n}")).body(body).send().unwrap().text().unwrap()
            };
            (0..5).map(ask).collect::<Vec<_>>()
        })
    };
    let answers = Comparison::of_calls(5 * THREADS as u64).run(work);
    assert_eq!(answers[7][0], format!("POST /7/0 {}", "ab".repeat(7)));
}
