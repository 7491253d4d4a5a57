//! `tokio-postgres` in tokio's runtimes, one on each thread, and a PostgreSQL server.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio_postgres::{Error, NoTls};
use uthread_software::harness::{Comparison, Kind};
use uthread_software::program::Postgres;

const THREADS: usize = 120;

async fn converse(url: &str, i: i64) -> Result<Vec<i64>, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    // Sent one behind the other, before there is an answer.
    let client = std::sync::Arc::new(client);
    let queries: Vec<_> = (0..10_i64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(
                async move { client.query_one("SELECT $1::bigint * 7", &[&(i + n)]).await },
            )
        })
        .collect();
    for query in queries {
        answers.push(query.await.expect("a query does not panic")?.get(0));
    }
    // Nothing happens for a while, but for tokio's timer.
    let beside = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        i
    });
    client.execute("SELECT pg_sleep(0.05)", &[]).await?;
    answers.push(beside.await.expect("a sleep does not panic"));
    drop(client);
    connection.await.expect("a connection does not panic")?;
    Ok(answers)
}

#[test]
fn tokio_waits_on_a_hundred_threads() {
    let Some(server) = Postgres::start(THREADS + 10) else { return };
    let url = server.url();
    let work = |kind: Kind| {
        kind.all(THREADS, |i| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(converse(&url, i as i64)).unwrap()
        })
    };
    let answers = Comparison::of_calls(5 * THREADS as u64).run(work);
    assert!((0..THREADS).all(|i| answers[i][3] == (i as i64 + 3) * 7));
}
