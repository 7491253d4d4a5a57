//! A process that runs out of descriptors can go on accepting once it has some again.
//!
//! The limit holds for the whole process; hence a file, and so a process, of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::panic::resume_unwind;

use nix::libc::EMFILE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uthread::net::{TcpListener, TcpStream};

/// Room for what the runtime and the scenario open, and little to use up.
const DESCRIPTORS: u64 = 64;

fn accept_fails_for_want_of_a_descriptor_and_works_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();

    let mut hoard = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => hoard.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(EMFILE));
    for _ in 0..3 {
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(EMFILE));
    }
    let error = TcpStream::connect(listener.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EMFILE));

    drop(hoard);
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    client.write_all(b"!").unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn accept_reports_exhausted_descriptors_and_stays_usable() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, most).unwrap();

    let green = uthread::spawn(accept_fails_for_want_of_a_descriptor_and_works_again);
    green.join().unwrap_or_else(|panic| resume_unwind(panic));
    accept_fails_for_want_of_a_descriptor_and_works_again();
}
