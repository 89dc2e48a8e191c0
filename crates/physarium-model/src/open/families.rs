/*!
The families of decoders, and how the config of each is read.

In: a `config.json`. Out: the fields that describe the language model ([`Described`]), with the row of [`FAMILIES`] that
says how they are read.
*/

use super::fields::Fields;
use crate::error::Result;

/// How the config of a family is read.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) qkv_bias: Bias,
    /// Whether `mlp_bias` is read; without it, gate, up and down have no bias.
    pub(super) mlp_bias: bool,
    pub(super) qk_norm: bool,
    pub(super) sliding: Sliding,
    pub(super) block: Block,
}

/// Whether q, k and v have a bias.
pub(super) enum Bias {
    Always,
    /// As `attention_bias` says, for q, k, v and o.
    AsConfigured,
    Never,
}

/// Which layers attend within a sliding window.
pub(super) enum Sliding {
    Never,
    /// All, unless `sliding_window` is null.
    All {
        unless_stated: usize,
    },
    /// As `use_sliding_window`, `layer_types` and `max_window_layers` say.
    AsConfigured,
    /// As `layer_types` says, or all but each `sliding_window_pattern`th.
    AllBut {
        each: usize,
        unless_stated: usize,
    },
}

/// What a layer does beside attention and its MLP, and which fields state it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// Norms before attention and before the MLP; `hidden_act` is SiLU.
    Llama,
    /// As Gemma 3 (arXiv 2503.19786): norms after attention and after the MLP too, all stored less one; embeddings are
    /// scaled; `hidden_activation` is GELU; layers with a sliding window have a rotary embedding of their own.
    Gemma3,
}

/// Sizes that a config leaves out where they are transformers' defaults.
pub(super) struct Defaults {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
}

impl Block {
    /// The sizes that a config may leave out.
    pub(super) fn defaults(self) -> Option<Defaults> {
        match self {
            Block::Llama => None,
            Block::Gemma3 => Some(Defaults {
                heads: 8,
                kv_heads: 4,
                head_dim: 256,
                vocabulary: 262_208,
                positions: 131_072,
            }),
        }
    }
}

const FAMILIES: [Family; 5] = [
    Family {
        model_type: "llama",
        qkv_bias: Bias::AsConfigured,
        mlp_bias: true,
        qk_norm: false,
        sliding: Sliding::Never,
        block: Block::Llama,
    },
    Family {
        model_type: "mistral",
        qkv_bias: Bias::Never,
        mlp_bias: false,
        qk_norm: false,
        sliding: Sliding::All { unless_stated: 4096 },
        block: Block::Llama,
    },
    Family {
        model_type: "qwen2",
        qkv_bias: Bias::Always,
        mlp_bias: false,
        qk_norm: false,
        sliding: Sliding::AsConfigured,
        block: Block::Llama,
    },
    Family {
        model_type: "qwen3",
        qkv_bias: Bias::AsConfigured,
        mlp_bias: false,
        qk_norm: true,
        sliding: Sliding::AsConfigured,
        block: Block::Llama,
    },
    Family {
        model_type: "gemma3_text",
        qkv_bias: Bias::AsConfigured,
        mlp_bias: false,
        qk_norm: true,
        sliding: Sliding::AllBut { each: 6, unless_stated: 4096 },
        block: Block::Gemma3,
    },
];

/// Models whose config describes the language model in `text_config`, with the `model_type` there.
const WITH_TEXT_CONFIG: [(&str, &str); 1] = [("gemma3", "gemma3_text")];

/// The fields that describe a language model.
pub(super) struct Described {
    pub(super) fields: Fields,
    pub(super) family: &'static Family,
}

impl Described {
    /// Finds them in a whole config.
    ///
    /// # Errors
    /// `Checkpoint` without a `model_type`; `Unsupported` for another family.
    pub(super) fn of(whole: &Fields) -> Result<Described> {
        let Some(model_type) = whole.text("model_type")? else {
            return Err(whole.fault("model_type", "the name of a model family", None));
        };
        let text = WITH_TEXT_CONFIG.iter().find(|(outer, _)| *outer == model_type);
        let (fields, model_type) = match text {
            None => (whole.all(), model_type),
            Some((_, of_text)) => {
                let missing = || whole.fault("text_config", "an object", None);
                (whole.object("text_config")?.ok_or_else(missing)?, *of_text)
            }
        };
        match FAMILIES.iter().find(|family| family.model_type == model_type) {
            Some(family) => Ok(Described { fields, family }),
            None => {
                let families = FAMILIES.iter().map(|family| family.model_type);
                let outer = WITH_TEXT_CONFIG.iter().map(|(outer, _)| *outer);
                let supported: Vec<&str> = families.chain(outer).collect();
                Err(whole.unsupported("model_type", model_type, &supported.join(", ")))
            }
        }
    }
}
