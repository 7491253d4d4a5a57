//! The `redis` crate's blocking client, and a Redis server.

use std::time::Duration;

use redis::{Client, Commands, ErrorKind, RedisResult};
use uthread_software::harness::{Comparison, Kind};
use uthread_software::program::Redis;

const THREADS: usize = 300;

/// Connects, however many do at the same time.
fn client(url: &str) -> Client {
    Client::open(url).unwrap()
}

/// What one connection does, and gets.
fn converse(client: &Client, kind: Kind, i: usize) -> RedisResult<Vec<String>> {
    let mut c = client.get_connection()?;
    let key = |name: &str| format!("{kind:?} {name}");
    let mine = key(&format!("of {i}"));
    let mut answers = Vec::new();
    for round in 0..10 {
        let _: () = c.set(&mine, format!("{i} in round {round}"))?;
        answers.push(c.get(&mine)?);
        let _: u64 = c.incr(key("sum"), i)?;
    }
    let (longer, upper): (usize, Vec<String>) = redis::pipe()
        .append(&mine, "x".repeat(100 * i))
        .rpush(key("list"), i)
        .ignore()
        .mget(&[&mine])
        .query(&mut c)?;
    answers.push(longer.to_string());
    answers.extend(upper);
    // A transaction that is begun again if somebody else's came first.
    let shared = [key("of some")];
    redis::transaction(&mut c, &shared, |c, pipe| {
        let value: Option<u64> = c.get(&shared[0])?;
        pipe.set(&shared[0], value.unwrap_or(0) + 1).ignore().query::<Option<()>>(c)
    })?;
    let wrong: RedisResult<u64> = c.get(&mine);
    answers.push(format!("{:?}", wrong.unwrap_err().kind()));
    Ok(answers)
}

fn conversations(url: &str) {
    let client = client(url);
    let work = |kind: Kind| {
        let mut c = client.get_connection().unwrap();
        let () = redis::cmd("FLUSHALL").query(&mut c).unwrap();
        let mut answers = kind.all(THREADS, |i| converse(&client, kind, i).unwrap());
        let mut list: Vec<usize> = c.lrange(format!("{kind:?} list"), 0, -1).unwrap();
        list.sort_unstable();
        assert_eq!(list, (0..THREADS).collect::<Vec<_>>());
        let sums: Vec<String> =
            c.mget(&[format!("{kind:?} sum"), format!("{kind:?} of some")]).unwrap();
        answers.push(sums);
        answers
    };
    let answers = Comparison::of_calls(60 * THREADS as u64).run(work);
    let sum = 10 * THREADS * (THREADS - 1) / 2;
    assert_eq!(answers[THREADS], [sum.to_string(), THREADS.to_string()]);
}

#[test]
fn hundreds_of_connections_get_their_own_answers() {
    let Some(server) = Redis::start() else { return };
    conversations(&server.url());
}

#[test]
fn hundreds_of_connections_by_a_socket_in_the_file_system_get_their_own_answers() {
    let Some(server) = Redis::start() else { return };
    conversations(&server.unix_url());
}

#[test]
fn pops_wait_for_what_other_threads_push() {
    let Some(server) = Redis::start() else { return };
    let client = client(&server.url());
    let work = |kind: Kind| {
        kind.all(THREADS, |i| {
            let mut c = client.get_connection().unwrap();
            let list = format!("list {}", i / 2);
            if i % 2 == 0 {
                let (_, value): (String, usize) = c.blpop(&list, 0.0).unwrap();
                value
            } else {
                std::thread::sleep(Duration::from_millis(20));
                c.rpush(&list, i).unwrap()
            }
        })
    };
    // Half of the threads sleep, and all read.
    let answers = Comparison::of_calls(2 * THREADS as u64).run(work);
    assert!((0..THREADS).step_by(2).all(|i| answers[i] == i + 1));
}

#[test]
fn messages_reach_all_who_have_subscribed() {
    const SUBSCRIBERS: usize = 100;
    let Some(server) = Redis::start() else { return };
    let client = client(&server.url());
    let work = |kind: Kind| {
        kind.all(SUBSCRIBERS + 1, |i| {
            let mut c = client.get_connection().unwrap();
            if i < SUBSCRIBERS {
                let mut messages = c.as_pubsub();
                messages.subscribe("news").unwrap();
                let get = || messages.get_message().unwrap().get_payload::<usize>().unwrap();
                return std::iter::repeat_with(get).take(10).collect::<Vec<_>>();
            }
            let subscribers = |c: &mut redis::Connection| -> (String, usize) {
                redis::cmd("PUBSUB").arg("NUMSUB").arg("news").query(c).unwrap()
            };
            while subscribers(&mut c).1 < SUBSCRIBERS {
                std::thread::sleep(Duration::from_millis(5));
            }
            (0..10).map(|i| c.publish("news", i * i).unwrap()).collect()
        })
    };
    let answers = Comparison::of_calls(SUBSCRIBERS as u64).run(work);
    assert!(
        answers[..SUBSCRIBERS].iter().all(|a| *a == (0..10).map(|i| i * i).collect::<Vec<_>>())
    );
    assert_eq!(answers[SUBSCRIBERS], [SUBSCRIBERS; 10]);
}

#[test]
#[cfg_attr(
    not(feature = "interpose"),
    ignore = "EINTR ends reads with a limit of time (signal(7))"
)]
fn a_read_that_takes_too_long_is_an_error() {
    let Some(server) = Redis::start() else { return };
    let client = client(&server.url());
    let work = |kind: Kind| {
        kind.all(THREADS, |_| {
            let mut c = client.get_connection().unwrap();
            c.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let late: RedisResult<Option<(String, String)>> = c.blpop("empty", 0.0);
            let error = late.unwrap_err();
            (error.is_timeout(), error.kind() == ErrorKind::Io)
        })
    };
    let answers = Comparison::of_calls(THREADS as u64).run(work);
    assert_eq!(answers, [(true, true); THREADS]);
}
