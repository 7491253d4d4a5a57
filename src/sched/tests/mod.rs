mod accounts;
mod checker;
mod generate;
mod program;
mod properties;
mod queue;
mod scenarios;
mod simulation;
mod trace;

use queue::Id;
