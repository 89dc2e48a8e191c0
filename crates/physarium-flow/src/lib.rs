/*!
The pruning maths on slices: no files, no clock, no randomness, no globals.

In: the bytes of a tile or a row, little-endian as on disk, in one of three float formats.
Out: a [`Cut`] (the magnitude below which weights are pruned, and how many of the ties), and the bytes
with pruned weights set to +0.0. The activation-aware methods of [`activation`] take float32 weights and
Gram matrices (Wanda: mean squares of inputs) instead, and return float32 weights.

A weight is represented by its *magnitude key*: its bits without the sign. Among finite values of
one format, keys are ordered like magnitudes. No weights are compared as floats, so NaN has no effect on
a comparison.

* [`Census`] counts the distinct magnitudes of a tile.
* [`Conductance`] runs the slime mould's dynamics on them (see `conductance.rs`).
* [`exact_cut`] prunes the k smallest instead; [`MagnitudeSearch`] does so over more weights than
  fit in memory.
* [`apply_cut`] and [`apply_pattern`] set the pruned weights to zero.
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
mod positions;
mod search;
mod tile;

pub use apply::{Counts, apply_cut};
pub use census::{Census, Magnitudes};
pub use conductance::{Conductance, FlowParams};
pub use cut::{Cut, exact_cut};
pub use format::FloatFormat;
pub use pattern::{apply_pattern, pattern_divides_row};
pub use positions::{count_ties, locate_tie, non_finite_positions};
pub use search::{FoundCut, MagnitudeSearch};
pub use tile::TileView;
