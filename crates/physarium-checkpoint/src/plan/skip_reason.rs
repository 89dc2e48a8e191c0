//! Why a tensor is not pruned.

use std::fmt;

use crate::escape::printable;
use crate::open::dtype::Dtype;

/// Why a tensor is not pruned. Its text is the `reason` in a journal, so that it must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its name is not that of a projection, or no `--target` pattern matches it.
    NotATarget,
    /// A `--skip` pattern matches it.
    SkipPattern(String),
    /// The index does not list it.
    NotInIndex,
    /// Its dtype cannot be pruned.
    Dtype(Dtype),
    /// It is neither a matrix nor a stack of experts.
    Rank(usize),
    /// It has no elements.
    Empty,
    /// It is a projection of another module than the language model, which has this path.
    OtherModule(String),
    /// It is in a layer beyond those that the decoder has by its config.
    BeyondDecoder {
        /// Layers of the decoder.
        layers: u64,
    },
}

impl SkipReason {
    /// Whether the tensor has the name of a projection, but is left alone for a reason that is not the user's choice.
    pub fn is_projection(&self) -> bool {
        let elsewhere =
            matches!(self, SkipReason::OtherModule(_) | SkipReason::BeyondDecoder { .. });
        elsewhere || self.is_target_by_name()
    }

    /// Whether the tensor would have been a target by its name: what `--strict` refuses.
    pub fn is_target_by_name(&self) -> bool {
        matches!(self, SkipReason::Dtype(_) | SkipReason::Rank(_) | SkipReason::NotInIndex)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipReason::NotATarget => f.write_str("not a target projection"),
            SkipReason::SkipPattern(glob) => write!(f, "taken out by --skip {}", printable(glob)),
            SkipReason::NotInIndex => f.write_str("not listed in the index"),
            SkipReason::Dtype(dtype) => write!(f, "dtype {dtype} cannot be pruned"),
            SkipReason::Rank(rank) => write!(f, "{rank}-D, expected 2-D"),
            SkipReason::Empty => f.write_str("no elements"),
            SkipReason::OtherModule(module) => {
                write!(f, "not of the language model, but of {}", printable(module))
            }
            SkipReason::BeyondDecoder { layers } => {
                write!(
                    f,
                    "beyond the {layers} layers of the decoder, such as next-token prediction"
                )
            }
        }
    }
}
