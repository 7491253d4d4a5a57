//! PostgreSQL, in a process of its own.

use std::str::FromStr;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, Row, Statement};

use super::deadline::Deadline;
use super::pool::Pool;
use super::statements as sql;
use super::{Error, Item, Report, Result, Session};
use crate::order::{Answer, Placed};

/// Two who create tables at the same time get in each other's way, `IF NOT EXISTS` or not.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(7416583)";

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Error {
        let text = match error.as_db_error() {
            Some(told) => told.message().to_owned(),
            None => match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        };
        let is_temporary = match error.code() {
            // Insufficient resources; an operator's intervention, as a shutdown; a start-up.
            Some(code) => {
                let class = &code.code()[..2];
                ["53", "57", "08"].contains(&class) || *code == SqlState::T_R_DEADLOCK_DETECTED
            }
            // Nothing was told, so the connection is gone, or there was none.
            None => true,
        };
        if is_temporary { Error::Unavailable(text) } else { Error::Refused(text) }
    }
}

/// Connections to a server.
pub(super) fn pool(url: &str, size: usize, patience: Duration) -> Result<Pool> {
    let mut config = Config::from_str(url).map_err(|error| Error::Refused(error.to_string()))?;
    config.connect_timeout(patience).application_name("uthread-backend");
    // The server gives up before we do, if it lives. What the URL says comes later, and counts.
    let milliseconds = patience.as_millis().min(i32::MAX as u128);
    let options = config.get_options().unwrap_or_default();
    config.options(&format!("-c statement_timeout={milliseconds} {options}"));
    let has_deadline = Deadline::prepare(&mut config);
    let patience = patience + patience / 2;
    Ok(Pool::new(size, patience, move || Postgres::connect(&config, has_deadline, patience)))
}

/// A connection with the statements that requests are made of. They are prepared at their first use: before that there
/// may be no tables.
struct Postgres {
    client: Client,
    prepared: Vec<(&'static str, Statement)>,
    deadline: Deadline,
    patience: Duration,
}

impl Postgres {
    fn connect(config: &Config, has_deadline: bool, patience: Duration) -> Result<Postgres> {
        let deadline = Deadline::default();
        deadline.set(Some(Instant::now() + patience));
        let client =
            if has_deadline { config.connect(deadline.clone())? } else { config.connect(NoTls)? };
        Ok(Postgres { client, prepared: Vec::new(), deadline, patience })
    }

    /// The client, for one question.
    fn client(&mut self) -> &mut Client {
        self.deadline.set(Some(Instant::now() + self.patience));
        &mut self.client
    }

    fn statement(&mut self, text: &'static str) -> Result<Statement> {
        if let Some((_, statement)) = self.prepared.iter().find(|(known, _)| *known == text) {
            return Ok(statement.clone());
        }
        let statement = self.client().prepare(text)?;
        self.prepared.push((text, statement.clone()));
        Ok(statement)
    }

    fn row(&mut self, text: &'static str, values: &Values<'_>) -> Result<Option<Row>> {
        let statement = self.statement(text)?;
        Ok(self.client().query_opt(&statement, values)?)
    }

    fn change(&mut self, text: &'static str, values: &Values<'_>) -> Result<u64> {
        let statement = self.statement(text)?;
        Ok(self.client().execute(&statement, values)?)
    }
}

/// There is time to say goodbye, which is not answered.
impl Drop for Postgres {
    fn drop(&mut self) {
        self.deadline.set(None);
    }
}

type Values<'a> = [&'a (dyn postgres::types::ToSql + Sync)];

/// A number that was put in as one that is never negative.
fn count(row: &Row, column: usize) -> u32 {
    u32::try_from(row.get::<_, i64>(column)).unwrap_or_default()
}

impl Session for Postgres {
    fn prepare(&mut self) -> Result<()> {
        // Others may prepare the same, and nobody waits for this but an operator.
        self.deadline.set(None);
        let mut transaction = self.client.transaction()?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
        transaction.batch_execute(ONE_AT_A_TIME)?;
        let number = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
        transaction.batch_execute(&sql::schema(number, "BYTEA"))?;
        Ok(transaction.commit()?)
    }

    fn ping(&mut self) -> Result<()> {
        Ok(self.client().batch_execute("SELECT 1")?)
    }

    fn item(&mut self, id: i64) -> Result<Option<Item>> {
        let row = self.row(sql::ITEM, &[&id])?;
        Ok(row.map(|row| Item { id: row.get(0), name: row.get(1), price_cents: row.get(2) }))
    }

    fn order(&mut self, id: i64) -> Result<Option<Answer>> {
        let row = self.row(sql::ORDER, &[&id])?;
        Ok(row.map(|row| Answer {
            order: row.get(0),
            item: row.get(1),
            name: row.get(2),
            quantity: count(&row, 3),
            customer: row.get(4),
            total_cents: row.get(5),
            days: count(&row, 6),
            receipt: row.get(7),
        }))
    }

    fn password_hash(&mut self, name: &str) -> Result<Option<String>> {
        Ok(self.row(sql::PASSWORD_HASH, &[&name])?.map(|row| row.get(0)))
    }

    fn picture(&mut self, id: i64) -> Result<Option<Vec<u8>>> {
        Ok(self.row(sql::PICTURE, &[&id])?.map(|row| row.get(0)))
    }

    fn report(&mut self) -> Result<Report> {
        let row = self.row(sql::REPORT, &[])?.expect("sums are one row");
        Ok(Report { orders: row.get(0), items: row.get(1), total_cents: row.get(2) })
    }

    fn record(&mut self, placed: &Placed) -> Result<i64> {
        let Placed { wanted, name, total_cents, days, receipt } = placed;
        let (quantity, days) = (i64::from(wanted.quantity), i64::from(*days));
        let values: &Values<'_> =
            &[&wanted.item, name, &quantity, &wanted.customer, total_cents, &days, receipt];
        Ok(self.row(sql::RECORD, values)?.expect("a row was inserted").get(0))
    }

    fn add_user(&mut self, name: &str, hash: &str) -> Result<bool> {
        Ok(self.change(sql::ADD_USER, &[&name, &hash])? == 1)
    }

    fn add_picture(&mut self, id: i64, png: &[u8]) -> Result<()> {
        self.change(sql::ADD_PICTURE, &[&id, &png]).map(drop)
    }
}
