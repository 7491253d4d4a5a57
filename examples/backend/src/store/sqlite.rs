//! SQLite, in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row, params};

use super::pool::Pool;
use super::statements as sql;
use super::{Error, Item, Report, Result, Session};
use crate::order::{Answer, Placed};

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::SystemIoFailure,
            ) => Error::Unavailable(error.to_string()),
            _ => Error::Refused(error.to_string()),
        }
    }
}

/// Connections to a file.
pub(super) fn pool(file: PathBuf, size: usize, patience: Duration) -> Pool {
    Pool::new(size, patience, move || Ok(Sqlite(connect(&file, patience)?)))
}

fn connect(file: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    // Another process may write, or fold the log back into the file.
    connection.busy_timeout(patience)?;
    // Readers and the writer do not wait for each other.
    connection.pragma_update(None, "journal_mode", "wal")?;
    // Commits do not wait for the disk, checkpoints do: what is lost with the machine's power is the end of the log.
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

struct Sqlite(Connection);

impl Sqlite {
    fn row<T>(
        &self,
        statement: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.0.prepare_cached(statement)?.query_row(values, read).optional()?)
    }

    fn value<T: FromSql>(&self, statement: &str, values: impl Params) -> Result<Option<T>> {
        self.row(statement, values, |row| row.get(0))
    }

    fn change(&self, statement: &str, values: impl Params) -> Result<usize> {
        Ok(self.0.prepare_cached(statement)?.execute(values)?)
    }
}

impl Session for Sqlite {
    fn prepare(&mut self) -> Result<()> {
        Ok(self.0.execute_batch(&sql::schema("INTEGER PRIMARY KEY", "BLOB"))?)
    }

    fn ping(&mut self) -> Result<()> {
        self.value::<i64>("SELECT 1 FROM items LIMIT 1", []).map(drop)
    }

    fn item(&mut self, id: i64) -> Result<Option<Item>> {
        self.row(sql::ITEM, [id], |row| {
            Ok(Item { id: row.get(0)?, name: row.get(1)?, price_cents: row.get(2)? })
        })
    }

    fn order(&mut self, id: i64) -> Result<Option<Answer>> {
        self.row(sql::ORDER, [id], |row| {
            Ok(Answer {
                order: row.get(0)?,
                item: row.get(1)?,
                name: row.get(2)?,
                quantity: row.get(3)?,
                customer: row.get(4)?,
                total_cents: row.get(5)?,
                days: row.get(6)?,
                receipt: row.get(7)?,
            })
        })
    }

    fn password_hash(&mut self, name: &str) -> Result<Option<String>> {
        self.value(sql::PASSWORD_HASH, [name])
    }

    fn picture(&mut self, id: i64) -> Result<Option<Vec<u8>>> {
        self.value(sql::PICTURE, [id])
    }

    fn report(&mut self) -> Result<Report> {
        let report = self.row(sql::REPORT, [], |row| {
            Ok(Report { orders: row.get(0)?, items: row.get(1)?, total_cents: row.get(2)? })
        })?;
        Ok(report.expect("sums are one row"))
    }

    fn record(&mut self, placed: &Placed) -> Result<i64> {
        let Placed { wanted, name, total_cents, days, receipt } = placed;
        let values = params![
            wanted.item,
            name,
            wanted.quantity,
            wanted.customer,
            total_cents,
            days,
            receipt
        ];
        Ok(self.value(sql::RECORD, values)?.expect("a row was inserted"))
    }

    fn add_user(&mut self, name: &str, hash: &str) -> Result<bool> {
        Ok(self.change(sql::ADD_USER, [name, hash])? == 1)
    }

    fn add_picture(&mut self, id: i64, png: &[u8]) -> Result<()> {
        self.change(sql::ADD_PICTURE, params![id, png]).map(drop)
    }
}
