mod accounts;
pub(crate) mod checker;
pub(crate) mod generate;
pub(crate) mod program;
mod properties;
mod queue;
mod scenarios;
mod simulation;

use queue::Id;
