/*!
A checkpoint packed into one file without its zeros, and unpacked again.

In: a checkpoint directory. Out: a `.physpack` file, which is a safetensors container of blobs. Targets are stored
as masks (or, if they have an N:M pattern, as shorter codes) and nonzero values in their own dtype; everything else
is stored unchanged. [`unpack`] restores the directory byte for byte; [`Packed`] reads one tensor or file at a time.
`docs/FORMATS.md` describes the format.

A weight is a zero if all its bits are zero. −0.0, NaN and everything else is a value.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod blob_reader;
mod census;
mod contents;
mod face;
mod groups;
mod mask_layout;
mod pack;
mod packed;
mod targets;
mod unpack;

pub use contents::{Form, TensorRecord};
pub use pack::{NegativeZeros, PackRequest, PackSummary, TensorSizes, pack};
pub use packed::Packed;
pub use targets::{WeightBytes, weight_bytes};
pub use unpack::{UnpackSummary, unpack};

/// Result of this crate's functions.
type Result<T, E = physarium_checkpoint::Error> = std::result::Result<T, E>;

/// Extension of the names of packed files.
pub const EXTENSION: &str = "physpack";
