/*!
The program `physarium`: arguments in, exit code out. The library `physarium` does the work.

[`run`] is the whole program. [`embedded`] runs its commands for another program, such as the Python package, which gets
results, events and errors instead of text on a terminal.
*/
#![deny(missing_docs)]

mod arguments;
mod commands;
pub mod embedded;
mod host;
mod model;
mod output;
mod program;
mod recipe;
mod signals;
mod stores;
mod surgery;
mod terminal;

pub use program::run;
