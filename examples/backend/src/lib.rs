//! A small but real web service on green threads, in crates that know nothing of them.
//!
//! A reader who follows a request meets the modules in this order:
//!
//! | module | concern |
//! |---|---|
//! | [`config`] | what can be set |
//! | [`backend`] | the whole: its start and its end |
//! | [`groups`] | the kinds of work, and their shares of the CPU |
//! | [`service`], [`route`], [`query`] | what is answered to whom; shedding load |
//! | [`order`] | the request of the story, step by step |
//! | [`store`] | the database: SQLite or PostgreSQL, a pool of connections |
//! | [`api`] | the external API: its client, and the API itself |
//! | [`work`] | what computes: passwords, images, receipts |
//! | [`gate`] | how many may do something at once |
//! | [`jobs`] | background jobs |
//! | [`logging`], [`telemetry`], [`metrics`] | what is told about it |
//! | [`json`], [`failure`] | what is read and what is refused |
//!
//! Nothing in `order`, `store`, `api`'s client, `work` and `gate` knows of green threads.

pub mod api;
pub mod backend;
pub mod config;
pub mod failure;
pub mod gate;
pub mod groups;
pub mod jobs;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod order;
pub mod query;
pub mod route;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod work;
