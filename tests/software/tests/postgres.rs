//! The `postgres` crate's blocking client, in which a runtime of tokio's waits for each connection, and a
//! PostgreSQL server.

use postgres::error::SqlState;
use postgres::{Client, Error, NoTls};
use uthread_software::harness::{Comparison, Kind};
use uthread_software::program::Postgres;

/// As many as there are connections, each of which is a process of the server's.
const THREADS: usize = 120;

/// What one connection does, and gets.
fn converse(url: &str, kind: Kind, i: usize) -> Result<Vec<i64>, Error> {
    let mut c = Client::connect(url, NoTls)?;
    let table = format!("work_{kind:?}");
    let mut answers = Vec::new();
    let insert = c.prepare(&format!("INSERT INTO {table} VALUES ($1, $2) RETURNING id * 2"))?;
    for round in 0..5 {
        let id = (i * 10 + round) as i64;
        answers.push(c.query_one(&insert, &[&id, &"x".repeat(i)])?.get(0));
    }
    let twice = c.execute(&insert, &[&(i as i64 * 10), &""]).unwrap_err();
    assert_eq!(twice.code(), Some(&SqlState::UNIQUE_VIOLATION));
    // All wait for the lock on one row.
    let mut t = c.transaction()?;
    t.execute(&format!("UPDATE {table} SET text = text || 'y' WHERE id = -10"), &[])?;
    t.execute("SELECT pg_sleep(0.001)", &[])?;
    t.commit()?;
    let sum = format!("SELECT sum(id)::bigint, sum(length(text)) FROM {table} WHERE id / 10 = $1");
    let row = c.query_one(&sum, &[&(i as i64)])?;
    answers.extend([row.get::<_, i64>(0), row.get(1)]);
    let many = c.query("SELECT generate_series(1, 2000)::bigint", &[])?;
    answers.push(many.iter().map(|row| row.get::<_, i64>(0)).sum());
    c.close()?;
    Ok(answers)
}

#[test]
fn a_hundred_connections_get_their_own_answers() {
    let Some(server) = Postgres::start(THREADS + 10) else { return };
    let url = server.url();
    let work = |kind: Kind| {
        let mut c = Client::connect(&url, NoTls).unwrap();
        let table = format!("work_{kind:?}");
        c.batch_execute(&format!(
            "DROP TABLE IF EXISTS {table};
             CREATE TABLE {table} (id bigint PRIMARY KEY, text text NOT NULL);
             INSERT INTO {table} VALUES (-10, '')"
        ))
        .unwrap();
        let mut answers = kind.all(THREADS, |i| converse(&url, kind, i).unwrap());
        let all =
            format!("SELECT count(*), sum(length(text)) FILTER (WHERE id = -10) FROM {table}");
        let row = c.query_one(&all, &[]).unwrap();
        answers.push(vec![row.get(0), row.get(1)]);
        answers
    };
    let answers = Comparison::of_calls(20 * THREADS as u64).run(work);
    assert_eq!(answers[THREADS], [5 * THREADS as i64 + 1, THREADS as i64]);
}
