//! `rusqlite` with the SQLite that it brings along: C that computes, and files.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use uthread_software::harness::{Comparison, Kind};

const THREADS: usize = 200;

/// Transactions of each thread.
const ROUNDS: i64 = 3;

#[test]
fn hundreds_of_connections_write_into_one_file() {
    let work = |kind: Kind| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rows");
        let open = || {
            let c = Connection::open(&file).unwrap();
            // It sleeps, and tries again, while somebody else writes.
            c.busy_timeout(Duration::from_secs(100)).unwrap();
            // Commits do not wait for the disk, checkpoints do.
            c.pragma_update(None, "synchronous", "normal").unwrap();
            c
        };
        let c = open();
        c.pragma_update(None, "journal_mode", "wal").unwrap();
        c.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, thread INTEGER, text TEXT)")
            .unwrap();
        c.execute("INSERT INTO rows VALUES (-1, -1, '')", []).unwrap();
        let mut answers = kind.all(THREADS, |i| {
            let i = i as i64;
            let mut c = open();
            for round in 0..ROUNDS {
                let t = c.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                let id = i * 10 + round;
                t.execute(
                    "INSERT INTO rows VALUES (?, ?, ?)",
                    params![id, i, "x".repeat(i as usize)],
                )
                .unwrap();
                t.execute("UPDATE rows SET text = text || 'y' WHERE id = -1", []).unwrap();
                t.commit().unwrap();
            }
            let sum = "SELECT sum(id), sum(length(text)) FROM rows WHERE thread = ?";
            let sums: (i64, i64) =
                c.query_row(sum, [i], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let twice = c.execute("INSERT INTO rows VALUES (-1, 0, '')", []).unwrap_err();
            assert_eq!(twice.sqlite_error_code(), Some(ErrorCode::ConstraintViolation));
            sums
        });
        let all = "SELECT count(*), max(length(text) * (id = -1)) FROM rows";
        answers.push(c.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap());
        let intact: String = c.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(intact, "ok");
        answers
    };
    let answers = Comparison::of_calls(10 * THREADS as u64).run(work);
    assert_eq!(answers[THREADS], (ROUNDS * THREADS as i64 + 1, ROUNDS * THREADS as i64));
}

#[test]
fn hundreds_of_databases_in_memory_compute() {
    let work = |kind: Kind| {
        kind.all(THREADS, |i| {
            let c = Connection::open_in_memory().unwrap();
            let sum = "WITH RECURSIVE n(i, s) AS (
                           VALUES (0, 0) UNION ALL SELECT i + 1, (s * 31 + i) % 65521 FROM n WHERE i < ?
                       ) SELECT max(s), total(s), group_concat(s % 10, '') FROM n";
            let columns = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?, row.get::<_, String>(2)?))
            };
            c.query_row(sum, [1000 + i as i64], columns).unwrap()
        })
    };
    // It computes; only mutexes that all connections share are waited for.
    Comparison::of_calls(0).run(work);
}
