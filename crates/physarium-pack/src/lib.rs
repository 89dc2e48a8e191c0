/*!
A checkpoint in one file that is as small as its noughts allow, and the same checkpoint back.

In: a checkpoint directory. Out: a `.physpack` file, a safetensors container of blobs: projections as
masks (or, where a pattern allows it, denser [`Groups`]) and the values that are there, in their own
dtype; everything else as it is. [`unpack`] gives the directory back byte for byte; [`Packed`] reads one
tensor or file at a time. The format is written down in `docs/FORMATS.md`.

No maths: a weight is nought if all its bits are. −0.0, NaN and everything else is a value.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod census;
mod contents;
mod groups;
mod mask_layout;
mod pack;
mod packed;
mod unpack;

pub use contents::{Form, TensorRecord};
pub use groups::Groups;
pub use pack::{PackRequest, PackSummary, TensorSizes, pack};
pub use packed::Packed;
pub use unpack::{UnpackSummary, unpack};

/// Result of this crate's functions.
type Result<T, E = physarium_checkpoint::Error> = std::result::Result<T, E>;

/// Ending of the names of packed files.
pub const EXTENSION: &str = "physpack";
