//! What the databases are asked, in the SQL that both understand.
//!
//! (To SQLite, `$1` is the name of a parameter; numbers are given in the order of first use, so that both agree.)

/// Item by number.
pub const ITEM: &str = "SELECT id, name, price_cents FROM items WHERE id = $1";
/// Order by number.
pub const ORDER: &str = "SELECT id, item, name, quantity, customer, total_cents, days, receipt FROM orders WHERE id = $1";
/// Hash of a password by the user's name.
pub const PASSWORD_HASH: &str = "SELECT password_hash FROM users WHERE name = $1";
/// Picture by number.
pub const PICTURE: &str = "SELECT png FROM pictures WHERE id = $1";
/// Sums over all orders.
pub const REPORT: &str = "SELECT count(*), count(DISTINCT item), CAST(coalesce(sum(total_cents), 0) AS BIGINT) FROM orders";
/// A new order; gives its number.
pub const RECORD: &str =
    "INSERT INTO orders (item, name, quantity, customer, total_cents, days, receipt)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
/// A new user; changes no row if there is one of this name.
pub const ADD_USER: &str =
    "INSERT INTO users (name, password_hash) VALUES ($1, $2) ON CONFLICT DO NOTHING";
/// A new picture.
pub const ADD_PICTURE: &str =
    "INSERT INTO pictures (id, png) VALUES ($1, $2) ON CONFLICT DO NOTHING";

/// Tables, where there are none, and items.
///
/// Databases differ in what numbers rows by itself (`number`), and in what they call bytes (`bytes`).
pub(super) fn schema(number: &str, bytes: &str) -> String {
    let items = super::ITEMS;
    format!(
        "CREATE TABLE IF NOT EXISTS items (id BIGINT PRIMARY KEY, name TEXT NOT NULL, price_cents BIGINT NOT NULL);
         CREATE TABLE IF NOT EXISTS orders (
             id {number}, item BIGINT NOT NULL, name TEXT NOT NULL, quantity BIGINT NOT NULL, customer TEXT NOT NULL,
             total_cents BIGINT NOT NULL, days BIGINT NOT NULL, receipt TEXT NOT NULL);
         CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password_hash TEXT NOT NULL);
         CREATE TABLE IF NOT EXISTS pictures (id BIGINT PRIMARY KEY, png {bytes} NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {items})
             INSERT INTO items SELECT i, 'item ' || i, 100 + i * 37 % 9900 FROM n WHERE true ON CONFLICT DO NOTHING;"
    )
}
