//! One file per command: its arguments, its run, and its result as text and as JSON.

pub mod audit;
pub mod compare;
pub mod demo;
pub mod eval;
pub mod inspect;
pub mod pack;
pub mod prune;
pub mod report;
pub mod run;
pub mod shell;
pub mod units;
#[cfg(feature = "object-stores")]
pub mod upload;
pub mod verify;
