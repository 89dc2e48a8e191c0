/*!
The maths of the surgery, on slices: no files, no clock, no randomness, no globals.

In: the bytes of a tile or a row, little-endian as on disk, in one of three float formats.
Out: a [`Cut`] (which magnitudes die, and how many of the ties), and the bytes with the dead
weights set to +0.0.

A weight is known here by its *magnitude key*: its bits without the sign. Among finite values of
one format the order of the keys is the order of the magnitudes, so that nothing is ever compared
as a float and NaN has no say.

* [`Census`] counts the distinct magnitudes of a tile.
* [`Conductance`] lets conductances adapt on them (the biology is in `conductance.rs`).
* [`exact_cut`] takes the k smallest instead; [`MagnitudeSearch`] does so over more weights than
  fit in memory.
* [`apply_cut`] and [`apply_pattern`] zero the dead.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod activation;
mod apply;
mod census;
mod conductance;
mod cut;
mod format;
mod pattern;
mod search;

pub use apply::{Counts, apply_cut};
pub use census::{Census, Magnitudes, TileView};
pub use conductance::{Conductance, FlowParams};
pub use cut::{Cut, exact_cut};
pub use format::FloatFormat;
pub use pattern::{apply_pattern, pattern_is_at_home};
pub use search::{FoundCut, MagnitudeSearch, count_ties, locate_tie, non_finite_positions};
