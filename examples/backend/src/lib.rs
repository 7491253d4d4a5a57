//! A small but real web service on green threads, in crates that know nothing of them.
//!
//! | module | concern |
//! |---|---|
//! | [`order`] | the request of the story, step by step |
//! | [`work`] | what computes: passwords, images, receipts |
//! | [`store`] | the database: SQLite or PostgreSQL, a pool of connections |
//! | [`api`] | the external API: its client, and the API itself |
//! | [`gate`] | how many may do something at once |
//! | [`json`], [`failure`] | what is read and answered |

pub mod api;
pub mod failure;
pub mod gate;
pub mod json;
pub mod order;
pub mod store;
pub mod work;
