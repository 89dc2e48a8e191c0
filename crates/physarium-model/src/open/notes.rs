//! What the user should know about how a model was read.

use std::fmt;

use physarium_checkpoint::printable;

/// Names of unused tensors that a note lists.
const LISTED: usize = 3;

/// Something about a model that changes no error into a success, but that a user may not expect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The config says that the head is the embedding, but a head with other weights is stored.
    UntiedHead {
        /// The head's tensor, which is used.
        head: String,
        /// The embedding's tensor.
        embedding: String,
    },
    /// The config says that the head is the embedding, and only the head is stored.
    HeadAsEmbedding {
        /// The head's tensor.
        head: String,
    },
    /// `rope_scaling` and `rope_parameters` differ.
    TwoRopes,
    /// A base of rotary embeddings differs from `rope_theta` inside `rope_scaling` or `rope_parameters`.
    TwoThetas {
        /// The field of the config.
        field: &'static str,
        /// The object, whose own value is used.
        object: &'static str,
    },
    /// The config describes a quantisation, but the weights are stored as numbers.
    Quantised {
        /// Its `quant_method`.
        method: String,
    },
    /// Stored tensors that the decoder does not have.
    Unused {
        /// All of them, in the order of their names; numbers in names count as numbers.
        tensors: Vec<String>,
    },
    /// An adapter beside the weights.
    Adapter {
        /// Its file.
        file: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::UntiedHead { head, embedding } => write!(
                f,
                "config.json says tie_word_embeddings, but {} is stored and differs from {}: the stored \
                 head is used, as in transformers 5",
                printable(head),
                printable(embedding)
            ),
            Note::HeadAsEmbedding { head } => write!(
                f,
                "no embedding is stored; config.json says tie_word_embeddings, so {} is the embedding too",
                printable(head)
            ),
            Note::TwoRopes => f.write_str(
                "config.json: rope_scaling and rope_parameters differ: rope_scaling is used, as in \
                 transformers 5",
            ),
            Note::TwoThetas { field, object } => write!(
                f,
                "config.json: {field} and {object}.rope_theta differ: {object}.rope_theta is used, as \
                 in transformers 5"
            ),
            Note::Quantised { method } => write!(
                f,
                "config.json: quantization_config ({}) is not applied: weights are used as stored",
                printable(method)
            ),
            Note::Unused { tensors } => {
                let (count, first) = (tensors.len(), &tensors[..tensors.len().min(LISTED)]);
                let first: Vec<String> = first.iter().map(|name| printable(name)).collect();
                let (noun, are) = if count == 1 { ("tensor", "is") } else { ("tensors", "are") };
                write!(f, "{count} {noun} {are} not used by the decoder: {}", first.join(", "))?;
                match count - first.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Note::Adapter { file } => {
                write!(f, "{file}: the adapter beside the model is not applied")
            }
        }
    }
}
