//! `ureq` over `rustls`, and a server over `rustls` with a thread per connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use uthread_software::harness::{Comparison, Kind};
use uthread_software::http;
use uthread_software::tcp::Server;

const THREADS: usize = 200;
const REQUESTS: usize = 5;

/// What a server needs to be 127.0.0.1, and what a client needs to believe that.
fn identity() -> (Arc<ServerConfig>, TlsConfig) {
    let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = identity.cert.der().clone();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let root = Certificate::from_der(&certificate).to_owned();
    let client = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build();
    (Arc::new(server), client)
}

#[test]
fn hundreds_of_clients_send_requests_over_tls() {
    let (server_config, client_config) = identity();
    let work = |kind: Kind| {
        let config = server_config.clone();
        let server = Server::start(kind, move |stream: TcpStream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // A client that has got its answers goes without a word.
            let _ = http::echo(StreamOwned::new(connection, stream));
        });
        let agent: Agent = Agent::config_builder()
            .tls_config(client_config.clone())
            .max_idle_connections(THREADS)
            .max_idle_connections_per_host(THREADS)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let url = format!("https://{}", server.address());
        kind.all(THREADS, |i| {
            let ask = |n: usize| {
                let body = "ab".repeat(n * 1000 + i);
                let mut answer = agent.post(format!("{url}/{i}/{n}")).send(body).unwrap();
                answer.body_mut().read_to_string().unwrap()
            };
            (0..REQUESTS).map(ask).collect::<Vec<_>>()
        })
    };
    // The clients give each other their connections, and with them memory of others' arenas.
    let comparison = Comparison { per_mille: 10, ..Comparison::of_calls(6 * THREADS as u64) };
    let answers = comparison.run(work);
    assert_eq!(answers[7][0], format!("POST /7/0 {}", "ab".repeat(7)));
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (server_config, _) = identity();
    let work = |kind: Kind| {
        let config = server_config.clone();
        let server = Server::start(kind, move |stream: TcpStream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let refused = stream.read(&mut [0; 16]).and_then(|_| stream.write_all(b"?"));
            assert!(refused.is_err());
        });
        let agent = Agent::new_with_defaults();
        let url = format!("https://{}", server.address());
        kind.all(20, |_| agent.get(&url).call().unwrap_err().to_string())
    };
    let answers = Comparison::of_calls(40).run(work);
    assert!(answers[0].contains("UnknownIssuer"), "{}", answers[0]);
}
