//! `tiny_http`, which reads on threads of its own, with `ureq` as its client.

use tiny_http::{Response, Server};
use ureq::Agent;
use uthread_software::harness::{Comparison, Kind};

const CLIENTS: usize = 200;
const SERVERS: usize = 8;

#[test]
fn some_threads_answer_hundreds() {
    let work = |kind: Kind| {
        let server = Server::http("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.server_addr());
        let agent: Agent = Agent::config_builder().max_idle_connections_per_host(0).build().into();
        let over = std::sync::atomic::AtomicUsize::new(0);
        kind.all(SERVERS + CLIENTS, |i| {
            if i < SERVERS {
                while let Ok(mut request) = server.recv() {
                    let mut body = String::new();
                    request.as_reader().read_to_string(&mut body).unwrap();
                    let answer = format!("{} {} {body}", request.method(), request.url());
                    request.respond(Response::from_string(answer)).unwrap();
                }
                return Vec::new();
            }
            let ask = |n: usize| {
                let body = "z".repeat(i * n * 10);
                let mut answer = agent.put(format!("{url}/{i}?{n}")).send(body).unwrap();
                answer.body_mut().read_to_string().unwrap()
            };
            let answers = (0..5).map(ask).collect();
            if over.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == CLIENTS {
                (0..SERVERS).for_each(|_| server.unblock());
            }
            answers
        })
    };
    let answers = Comparison::of_calls(10 * CLIENTS as u64).run(work);
    assert_eq!(answers[SERVERS + 2][1], format!("PUT /{}?1 {}", SERVERS + 2, "z".repeat(100)));
}
