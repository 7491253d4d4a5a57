//! The socket through which a runtime can be looked into: who may connect, what is answered, and what clients that
//! misbehave can do.
#![cfg(feature = "inspect")]

#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uthread::inspect::protocol::{
    Answer, Column, LONGEST_REQUEST, MOST_ROWS, Request, Snapshot, SnapshotRequest, VERSION,
};
use uthread::{Builder, Group, JoinHandle, Runtime, WaitReason};

use watchdog::watched;

/// A directory of the test's own.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("uthread-inspect-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Place(path),
                // Left by a process that had the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn runtime(path: &Path) -> Runtime {
    Runtime::builder().workers(2).socket(path).build().unwrap()
}

/// Plays a scenario with a runtime that listens.
fn served(scenario: impl FnOnce(&Runtime, &Path)) {
    let place = Place::new();
    let runtime = runtime(&place.socket());
    watched(&runtime, || scenario(&runtime, &place.socket()));
}

struct Client {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Client {
    fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Client { stream, answers }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// None at the connection's end.
    fn receive(&mut self) -> Option<Answer> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            // With what was not read by the server there.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return None,
            read => read.unwrap(),
        };
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn ask(&mut self, request: &Request) -> Answer {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        self.send(&line);
        self.receive().expect("an answer")
    }

    fn snapshot(&mut self, request: SnapshotRequest) -> Snapshot {
        match self.ask(&Request::Snapshot(request)) {
            Answer::Snapshot(snapshot) => snapshot,
            other => panic!("no snapshot: {other:?}"),
        }
    }

    fn is_greeted(&mut self) -> bool {
        matches!(self.ask(&Request::Hello {}), Answer::Hello(hello) if hello.protocol == VERSION)
    }

    /// The error that is the last thing to come.
    fn is_sent_away(&mut self) -> String {
        let Some(Answer::Error { message }) = self.receive() else { panic!("no error comes") };
        assert_eq!(self.receive(), None, "the connection stays open");
        message
    }
}

fn park_named(runtime: &Runtime, name: &str) -> JoinHandle<()> {
    let thread = Builder::new().name(name.into()).spawn_in(runtime, uthread::park).unwrap();
    let parks =
        |t: &uthread::ThreadInfo| t.id == thread.thread().id() && t.state.reason().is_some();
    while !runtime.threads().unwrap().iter().any(parks) {
        std::thread::yield_now();
    }
    thread
}

fn end(thread: JoinHandle<()>) {
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn a_client_is_greeted() {
    served(|_, path| {
        let mut client = Client::connect(path);
        let Answer::Hello(hello) = client.ask(&Request::Hello {}) else { panic!("no greeting") };
        assert_eq!(hello.pid, std::process::id());
        assert_eq!(hello.version, env!("CARGO_PKG_VERSION"));
        assert!(hello.program.starts_with("inspect"));
    });
}

#[test]
fn requests_are_answered_in_their_order_however_they_arrive() {
    served(|_, path| {
        let mut client = Client::connect(path);
        client.send(b"{\"hello\":{}}\n{\"stack\":{\"id\":4294967295}}\n{\"snapsh");
        assert!(matches!(client.receive(), Some(Answer::Hello(_))));
        assert!(matches!(client.receive(), Some(Answer::Stack(stack)) if stack.thread.is_none()));
        client.send(b"ot\":{}}\n");
        assert!(matches!(client.receive(), Some(Answer::Snapshot(_))));
    });
}

#[test]
fn a_snapshot_agrees_with_threads() {
    served(|runtime, path| {
        let group = Group::builder().name("inspected").weight(300).build().unwrap();
        let threads: Vec<_> = (0..20).map(|i| park_named(runtime, &format!("parks {i}"))).collect();
        let of_group = Builder::new().group(&group).spawn_in(runtime, uthread::park).unwrap();
        let wait = || {
            runtime.threads().unwrap().iter().all(|t| t.state.reason() == Some(WaitReason::Park))
        };
        while !wait() {
            std::thread::yield_now();
        }
        let mut client = Client::connect(path);
        // Accounts and a worker's present thread are written a little after a thread says that it waits.
        let (seen, wanted) = loop {
            let before = runtime.threads().unwrap();
            let seen = client.snapshot(SnapshotRequest::default());
            let wanted = runtime.threads().unwrap();
            let same = before.iter().zip(&wanted).all(|(a, b)| a.stat == b.stat);
            if same && seen.workers.iter().all(|w| w.queued == 0 && w.thread.is_none()) {
                break (seen, wanted);
            }
        };
        assert_eq!(seen.rows.len(), wanted.len());
        for (row, info) in seen.rows.iter().zip(&wanted) {
            assert_eq!(row.id, info.id.as_u64().get());
            assert_eq!(row.name, info.name);
            assert_eq!((&*row.state, row.reason.as_deref()), ("waiting", Some("park")));
            assert_eq!(row.group, info.group);
            assert_eq!(row.worker, info.worker);
            assert_eq!(row.spawned_at, info.spawned_at.to_string());
            assert_eq!(u128::from(row.run_time_ns), info.stat.run_time.as_nanos());
            assert_eq!(u128::from(row.run_delay_ns), info.stat.run_delay.as_nanos());
            assert_eq!((row.turns, row.wakeups), (info.stat.turns, info.stat.wakeups));
            assert_eq!(row.stack_reserved, info.stack.reserved);
            assert!(row.stack_resident > 0 && row.stack_high_water >= row.stack_resident);
        }
        assert_eq!((seen.threads.total, seen.threads.waiting), (21, 21));
        assert_eq!(seen.counters["threads_live"], 21);
        assert_eq!(seen.workers.len(), 2);
        let row = seen.groups.iter().find(|g| g.name == "inspected").unwrap();
        assert_eq!((row.weight, row.threads, row.turns), (300, 1, 1));
        assert_eq!((&*seen.groups[0].name, seen.groups[0].threads), ("default", 20));
        threads.into_iter().chain([of_group]).for_each(end);
        // They are joined a little before they are gone.
        while client.snapshot(SnapshotRequest::default()).threads.total > 0 {}
    });
}

#[test]
fn threads_are_sorted_searched_and_cut_by_the_server() {
    served(|runtime, path| {
        let names = ["beta", "Alpha", "gamma", "alphabet", "delta"];
        let threads: Vec<_> = names.iter().map(|name| park_named(runtime, name)).collect();
        let mut client = Client::connect(path);
        let mut names = |request| -> (Vec<String>, usize) {
            let seen = client.snapshot(request);
            (seen.rows.into_iter().map(|r| r.name.unwrap()).collect(), seen.threads.matching)
        };
        let by_name = SnapshotRequest { sort: Column::Name, ..SnapshotRequest::default() };
        assert_eq!(names(by_name.clone()).0, ["Alpha", "alphabet", "beta", "delta", "gamma"]);
        let found = SnapshotRequest { search: "ALPHA".into(), descending: true, ..by_name.clone() };
        assert_eq!(names(found), (vec!["alphabet".into(), "Alpha".into()], 2));
        let cut = SnapshotRequest { offset: 1, limit: 2, ..by_name.clone() };
        assert_eq!(names(cut), (vec!["alphabet".into(), "beta".into()], 5));
        let behind = SnapshotRequest { offset: 5, limit: usize::MAX, ..by_name };
        assert_eq!(names(behind), (vec![], 5));
        threads.into_iter().for_each(end);
    });
}

#[test]
fn times_are_of_the_interval_and_in_all() {
    served(|runtime, path| {
        let mut client = Client::connect(path);
        let turns = |client: &mut Client| {
            let snapshot = client.snapshot(SnapshotRequest::default());
            assert!(snapshot.cpu_ns > 0 && snapshot.took_ns > 0);
            let names: Vec<_> =
                snapshot.times.iter().map(|t| (&*t.name, t.op.as_deref())).collect();
            assert_eq!(
                names[..3],
                ["run_delay", "wakeup_latency", "slice_length"].map(|n| (n, None))
            );
            assert!(names.contains(&("op_latency", Some("recv"))));
            let all = snapshot.times.iter();
            assert!(all.clone().all(|t| t.count <= t.total && t.p50_ns <= t.p99_ns));
            snapshot.times[2].clone()
        };
        runtime.run(|| (0..10).for_each(|_| uthread::yield_now()));
        let first = turns(&mut client);
        assert!(first.total >= 10 && first.count == first.total && first.max_ns > 0, "{first:?}");
        std::thread::sleep(Duration::from_millis(600));
        runtime.run(uthread::yield_now);
        let second = turns(&mut client);
        assert!(second.total > first.total && (1..10).contains(&second.count), "{second:?}");
    });
}

#[test]
fn names_are_those_of_the_threads_that_exist_however_often_one_looks() {
    served(|runtime, path| {
        let mut client = Client::connect(path);
        let mut names = |search: &str| {
            let request = SnapshotRequest {
                sort: Column::Name,
                search: search.into(),
                ..SnapshotRequest::default()
            };
            let rows = client.snapshot(request).rows.into_iter();
            rows.filter_map(|row| row.name).collect::<Vec<_>>().join(" ")
        };
        let [b, c] = ["bird", "cat"].map(|name| park_named(runtime, name));
        assert_eq!((names(""), names("")), ("bird cat".into(), "bird cat".into()));
        let a = park_named(runtime, "ant");
        assert_eq!(names(""), "ant bird cat");
        end(b);
        // One that was joined may be seen at its very end.
        while !names("bird").is_empty() {}
        let d = park_named(runtime, "dog");
        assert_eq!(
            (names(""), names("o"), names("")),
            ("ant cat dog".into(), "dog".into(), "ant cat dog".into())
        );
        [a, c, d].into_iter().for_each(end);
        while !names("").is_empty() {}
    });
}

#[test]
fn an_answer_has_no_more_threads_than_it_may() {
    served(|runtime, path| {
        let threads: Vec<_> = (0..MOST_ROWS + 10).map(|_| runtime.spawn(uthread::park)).collect();
        let mut client = Client::connect(path);
        let seen = client.snapshot(SnapshotRequest { limit: usize::MAX, ..Default::default() });
        assert_eq!((seen.rows.len(), seen.threads.total), (MOST_ROWS, MOST_ROWS + 10));
        threads.into_iter().for_each(end);
    });
}

#[test]
fn who_runs_is_shown_with_its_worker_and_its_share() {
    served(|runtime, path| {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let spins = Builder::new().name("spins".into()).spawn_in(runtime, move || {
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let spins = spins.unwrap();
        let mut client = Client::connect(path);
        loop {
            let seen = client.snapshot(SnapshotRequest::default());
            let worker = seen.workers.iter().find(|w| w.thread_name.as_deref() == Some("spins"));
            let Some(worker) = worker else { continue };
            if worker.busy > 0.0 && seen.rows[0].share > 0.0 && seen.groups[0].share > 0.0 {
                assert_eq!(worker.thread, Some(seen.rows[0].id));
                assert_eq!(seen.rows[0].state, "running");
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        spins.join().unwrap();
    });
}

#[inline(never)]
fn waits_in_here() {
    uthread::park();
    std::hint::black_box(());
}

#[test]
fn the_stack_of_one_thread_is_shown() {
    served(|runtime, path| {
        let other = park_named(runtime, "other");
        let thread = Builder::new().name("deep".into()).spawn_in(runtime, waits_in_here).unwrap();
        let id = thread.thread().id().as_u64().get();
        let mut client = Client::connect(path);
        loop {
            let Answer::Stack(stack) = client.ask(&Request::Stack { id }) else {
                panic!("no stack")
            };
            let row = stack.thread.expect("it exists, or is about to");
            assert_eq!((row.id, row.name.as_deref()), (id, Some("deep")));
            let is_it = |name: &String| name.contains("waits_in_here");
            if stack.frames.iter().any(|f| f.function.as_ref().is_some_and(is_it)) {
                break;
            }
        }
        end(thread);
        let Answer::Stack(stack) = client.ask(&Request::Stack { id }) else { panic!("no stack") };
        assert_eq!((stack.thread, stack.frames.len()), (None, 0));
        end(other);
    });
}

#[test]
fn garbage_is_told_to_be_none_and_ends_the_connection() {
    served(|_, path| {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\n",
            b"\0\xff\xfe\n",
            b"{\"snapshot\":{\"sort\":\"colour\"}}\n",
            b"{\"snapshot\":{\"limit\":-1}}\n",
            b"{\"kill\":{\"id\":1}}\n",
            b"[[[[[[[[[[[[\n",
        ] {
            let mut client = Client::connect(path);
            client.send(garbage);
            let message = client.is_sent_away();
            assert!(message.starts_with("this is no request"), "{message}");
        }
        let mut deep = vec![b'['; LONGEST_REQUEST - 1];
        deep.push(b'\n');
        let mut client = Client::connect(path);
        client.send(&deep);
        client.is_sent_away();
        assert!(Client::connect(path).is_greeted());
    });
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    served(|_, path| {
        let mut client = Client::connect(path);
        let mut writer = client.stream.try_clone().unwrap();
        // It is not read to its end.
        let writing = std::thread::spawn(move || {
            let spaces = [b' '; 4096];
            while writer.write_all(&spaces).is_ok() {}
        });
        let message = client.is_sent_away();
        assert!(message.contains("65536 bytes"), "{message}");
        writing.join().unwrap();
        assert!(Client::connect(path).is_greeted());
    });
}

#[test]
fn clients_that_go_away_are_not_missed() {
    served(|_, path| {
        // Where those before still have their places, one is sent away: that is none of this test's business.
        for _ in 0..20 {
            let mut client = Client::connect(path);
            let _ = client.stream.write_all(b"{\"snapsh");
            drop(client);
            let mut client = Client::connect(path);
            let _ = client.stream.write_all(b"{\"snapshot\":{}}\n{\"snapshot\":{}}\n");
            drop(client);
            drop(UnixStream::connect(path).unwrap());
        }
        // The last of them may still have their places.
        loop {
            let mut client = Client::connect(path);
            let request = b"{\"hello\":{}}\n";
            let greeted = client.stream.write_all(request).is_ok()
                && matches!(client.receive(), Some(Answer::Hello(_)));
            if greeted {
                break;
            }
        }
    });
}

#[test]
fn one_client_too_many_is_sent_away_and_finds_room_later() {
    served(|_, path| {
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(path)).collect();
        assert!(clients.iter_mut().all(Client::is_greeted));
        let message = Client::connect(path).is_sent_away();
        assert!(message.contains("8 clients"), "{message}");
        assert!(clients.iter_mut().all(Client::is_greeted));
        drop(clients.pop());
        loop {
            let mut client = Client::connect(path);
            if client.stream.write_all(b"{\"hello\":{}}\n").is_ok()
                && matches!(client.receive(), Some(Answer::Hello(_)))
            {
                break;
            }
        }
    });
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_else() {
    served(|runtime, path| {
        let threads: Vec<_> = (0..MOST_ROWS).map(|_| runtime.spawn(uthread::park)).collect();
        let mut other = Client::connect(path);
        let greedy = Client::connect(path);
        let mut writer = greedy.stream.try_clone().unwrap();
        writer.set_nonblocking(true).unwrap();
        // Until the server takes no more, since it cannot answer.
        let request = b"{\"snapshot\":{\"limit\":1000}}\n";
        let mut full = 0;
        while full < 100 {
            match writer.write(request) {
                Ok(_) => full = 0,
                Err(_) => full += 1,
            }
            assert!(other.is_greeted());
        }
        drop(greedy);
        threads.into_iter().for_each(end);
    });
}

#[test]
fn only_the_user_may_connect() {
    served(|_, path| {
        let file = fs::symlink_metadata(path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    });
}

#[test]
fn a_path_may_be_as_long_as_the_kernel_takes() {
    const MOST: usize = 107;
    let place = Place::new();
    let rest = MOST - place.0.as_os_str().len() - "//s".len();
    let directory = place.0.join("d".repeat(rest));
    fs::create_dir(&directory).unwrap();
    let path = directory.join("s");
    assert_eq!(path.as_os_str().len(), MOST);
    let runtime = runtime(&path);
    assert!(Client::connect(&path).is_greeted());
    let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["s"]);
    drop(runtime);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn the_file_goes_with_the_runtime() {
    let place = Place::new();
    let runtime = runtime(&place.socket());
    let mut client = Client::connect(&place.socket());
    assert!(client.is_greeted());
    drop(runtime);
    assert_eq!(client.receive(), None);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn a_file_that_was_put_in_its_place_stays() {
    let place = Place::new();
    let runtime = runtime(&place.socket());
    fs::remove_file(place.socket()).unwrap();
    fs::write(place.socket(), "not a socket").unwrap();
    drop(runtime);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "not a socket");
}

#[test]
fn a_socket_left_behind_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.socket()).unwrap());
    let runtime = runtime(&place.socket());
    watched(&runtime, || assert!(Client::connect(&place.socket()).is_greeted()));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "something is left beside it");
}

#[test]
fn a_socket_in_use_is_refused_and_goes_on() {
    let place = Place::new();
    let first = runtime(&place.socket());
    watched(&first, || {
        let second = Runtime::builder().workers(1).socket(place.socket()).build();
        let error = second.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let message = error.to_string();
        assert!(message.contains("choose another path"), "{message}");
        assert!(Client::connect(&place.socket()).is_greeted());
    });
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let place = Place::new();
    fs::write(place.socket(), "precious").unwrap();
    let error = Runtime::builder().workers(1).socket(place.socket()).build().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
    let long = place.0.join("x".repeat(120));
    let error = Runtime::builder().workers(1).socket(long).build().unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn of_many_that_replace_a_socket_one_gets_it() {
    let place = Place::new();
    for _ in 0..20 {
        drop(UnixListener::bind(place.socket()).unwrap());
        let (place, over) = (&place, &std::sync::Barrier::new(4));
        std::thread::scope(|s| {
            let start = || {
                let runtime = Runtime::builder().workers(1).socket(place.socket()).build();
                over.wait();
                let refused = runtime.as_ref().err().map(io::Error::kind);
                assert!(matches!(refused, None | Some(io::ErrorKind::AddrInUse)), "{refused:?}");
                refused.is_none()
            };
            let all: Vec<_> = (0..4).map(|_| s.spawn(start)).collect();
            let served = all.into_iter().map(|t| t.join().unwrap());
            assert_eq!(served.filter(|served| *served).count(), 1);
        });
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
    }
}

#[test]
fn the_environment_opens_a_socket_for_the_first_runtime_and_exit_removes_it() {
    let place = Place::new();
    let path = place.socket();
    let output = subprocess::in_child(
        "the_environment_opens_a_socket_for_the_first_runtime_and_exit_removes_it",
        &[("UTHREAD_SOCKET", path.to_str().unwrap())],
        || {
            let path = std::env::var_os("UTHREAD_SOCKET").unwrap();
            // Is never dropped.
            uthread::spawn(|| ()).join().unwrap();
            assert!(Client::connect(path.as_ref()).is_greeted());
            drop(Runtime::builder().workers(1).build().unwrap());
            assert!(Client::connect(path.as_ref()).is_greeted());
        },
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn the_socket_of_the_environment_is_for_the_first_runtime_that_starts() {
    let place = Place::new();
    let path = place.socket();
    let output = subprocess::in_child(
        "the_socket_of_the_environment_is_for_the_first_runtime_that_starts",
        &[("UTHREAD_SOCKET", path.to_str().unwrap())],
        || {
            let path = std::env::var_os("UTHREAD_SOCKET").unwrap();
            let (usual, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            // Enough for the socket, and not for a runtime.
            let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
            setrlimit(Resource::RLIMIT_NOFILE, next + 1, most).unwrap();
            Runtime::builder().workers(1).build().unwrap_err();
            setrlimit(Resource::RLIMIT_NOFILE, usual, most).unwrap();
            assert!(!Path::new(&path).exists());
            let runtime = Runtime::builder().workers(1).build().unwrap();
            assert!(Client::connect(path.as_ref()).is_greeted());
            drop(runtime);
        },
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_socket_that_the_environment_wants_in_vain_is_told_and_no_more() {
    let place = Place::new();
    let path = place.0.join("missing").join("socket");
    let output = subprocess::in_child(
        "a_socket_that_the_environment_wants_in_vain_is_told_and_no_more",
        &[("UTHREAD_SOCKET", path.to_str().unwrap())],
        || uthread::spawn(|| ()).join().unwrap(),
    );
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("UTHREAD_SOCKET: cannot open the socket"), "{stderr}");
}

#[test]
fn a_socket_that_the_environment_wants_in_vain_is_not_told_to_nobody() {
    let place = Place::new();
    let path = place.0.join("missing").join("socket");
    let output = subprocess::in_child(
        "a_socket_that_the_environment_wants_in_vain_is_not_told_to_nobody",
        &[("UTHREAD_SOCKET", path.to_str().unwrap())],
        || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            nix::unistd::dup2_stderr(&writer).unwrap();
            uthread::spawn(|| ()).join().unwrap();
        },
    );
    assert!(output.status.success(), "{output:?}");
}
