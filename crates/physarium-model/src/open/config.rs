/*!
The shape of a decoder, read from `config.json`.

In: `config.json` as transformers 4.x (`rope_theta`, `rope_scaling`) or 5.x (`rope_parameters`) writes it.
Out: a [`Config`]; families differ only in its values, and a row of `FAMILIES` says how each is read. A valid
setting that the decoder does not support is an error, never ignored.
*/

use serde_json::Value;

use super::fields::Fields;
use super::files::ModelFiles;
use super::notes::Note;
use super::rope::{Rope, RopeRead};
use crate::error::{Error, Result};

/// Maximum number of layers.
const MAX_LAYERS: usize = 4096;

/// Which maps have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// o.
    pub output: bool,
    /// gate, up and down.
    pub mlp: bool,
}

/// The shape of a decoder. Sizes are numbers of features, heads, layers or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `model_type`: `llama`, `mistral`, `qwen2`, `qwen3`.
    pub model_type: String,
    /// Features of the residual stream.
    pub hidden: usize,
    /// Features inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each is used by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Maximum context in tokens, after the extension by a scaling of the rotary embedding; `None` if the config
    /// states none.
    pub max_positions: Option<usize>,
    /// Added to the mean square in the norms.
    pub epsilon: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Which maps have a bias.
    pub biases: Biases,
    /// Whether queries and keys are normalised head by head (Qwen3).
    pub qk_norm: bool,
    /// Whether the config says that the head is the embedding. What is stored decides.
    pub tied: bool,
    /// For each layer the number of positions that a query attends to, including its own; all if `None`.
    pub windows: Vec<Option<usize>>,
    /// What the user should know about how fields were read.
    pub(crate) notes: Vec<Note>,
}

/// How the config of a family is read.
struct Family {
    model_type: &'static str,
    qkv_bias: Bias,
    /// Whether `mlp_bias` is read; without it, gate, up and down have no bias.
    mlp_bias: bool,
    qk_norm: bool,
    sliding: Sliding,
}

/// Whether q, k and v have a bias.
enum Bias {
    Always,
    /// As `attention_bias` says, for q, k, v and o.
    AsConfigured,
    Never,
}

/// Which layers attend within a sliding window.
enum Sliding {
    Never,
    /// All, unless `sliding_window` is null.
    All {
        unless_stated: usize,
    },
    /// As `use_sliding_window`, `layer_types` and `max_window_layers` say.
    AsConfigured,
}

const FAMILIES: [Family; 4] = [
    Family {
        model_type: "llama",
        qkv_bias: Bias::AsConfigured,
        mlp_bias: true,
        qk_norm: false,
        sliding: Sliding::Never,
    },
    Family {
        model_type: "mistral",
        qkv_bias: Bias::Never,
        mlp_bias: false,
        qk_norm: false,
        sliding: Sliding::All { unless_stated: 4096 },
    },
    Family {
        model_type: "qwen2",
        qkv_bias: Bias::Always,
        mlp_bias: false,
        qk_norm: false,
        sliding: Sliding::AsConfigured,
    },
    Family {
        model_type: "qwen3",
        qkv_bias: Bias::AsConfigured,
        mlp_bias: false,
        qk_norm: true,
        sliding: Sliding::AsConfigured,
    },
];

impl Config {
    /// Reads `config.json` of a model.
    ///
    /// # Errors
    /// `Checkpoint` if the file is missing, or a field is missing or wrong; `Unsupported` for a model type,
    /// an activation or a position embedding that this decoder does not support.
    pub fn read(files: &ModelFiles) -> Result<Config> {
        let fields = Fields::read(files, "config.json")?;
        let family = family(&fields)?;
        let hidden = fields.required_size("hidden_size")?;
        let heads = fields.required_size("num_attention_heads")?;
        let kv_heads = fields.size("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads ({heads})");
            let found = Value::from(kv_heads);
            return Err(fields.fault("num_key_value_heads", &expected, Some(&found)));
        }
        let head_dim = fields.size("head_dim")?.unwrap_or(hidden / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            let found = Value::from(head_dim);
            return Err(fields.fault("head_dim", "an even number", Some(&found)));
        }
        refuse_per_layer_config(&fields)?;
        let layers = fields.required_size("num_hidden_layers")?;
        if layers > MAX_LAYERS {
            let expected = format!("at most {MAX_LAYERS}");
            let found = Value::from(layers);
            return Err(fields.fault("num_hidden_layers", &expected, Some(&found)));
        }
        match fields.text("hidden_act")?.unwrap_or("silu") {
            "silu" | "swish" => {}
            other => return Err(fields.unsupported("hidden_act", other, "silu")),
        }
        let mut notes = quantisation(&fields)?;
        let RopeRead { rope, extended_positions } = RopeRead::of(&fields, &mut notes)?;
        let max_positions = fields.positions("max_position_embeddings")?;
        Ok(Config {
            model_type: family.model_type.to_owned(),
            hidden,
            intermediate: fields.required_size("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: fields.required_size("vocab_size")?,
            max_positions: max_positions.map(|most| most.max(extended_positions.unwrap_or(0))),
            epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope,
            biases: biases(&fields, family)?,
            qk_norm: family.qk_norm,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            windows: windows(&fields, &family.sliding, layers)?,
            notes,
        })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// Features of all query heads together.
    pub fn attention_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Features of all key heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

fn family(fields: &Fields) -> Result<&'static Family> {
    let Some(model_type) = fields.text("model_type")? else {
        return Err(fields.fault("model_type", "the name of a model family", None));
    };
    FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let supported: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        fields.unsupported("model_type", model_type, &supported.join(", "))
    })
}

/// transformers 5 lets each layer have settings of its own.
fn refuse_per_layer_config(fields: &Fields) -> Result<()> {
    match fields.get("per_layer_config") {
        None => Ok(()),
        Some(_) => Err(fields.unsupported("per_layer_config", "(as stated)", "none")),
    }
}

/// A note if the config describes a quantisation. Weights in a quantised dtype are refused when they are found.
fn quantisation(fields: &Fields) -> Result<Vec<Note>> {
    let Some(quantisation) = fields.object("quantization_config")? else { return Ok(Vec::new()) };
    let method = quantisation.text("quant_method")?.unwrap_or("unnamed").to_owned();
    Ok(vec![Note::Quantised { method }])
}

fn biases(fields: &Fields, family: &Family) -> Result<Biases> {
    let stated = |field| Ok::<_, Error>(fields.flag(field)?.unwrap_or(false));
    let (qkv, output) = match family.qkv_bias {
        Bias::Always => (true, false),
        Bias::Never => (false, false),
        Bias::AsConfigured => (stated("attention_bias")?, stated("attention_bias")?),
    };
    Ok(Biases { qkv, output, mlp: family.mlp_bias && stated("mlp_bias")? })
}

fn windows(fields: &Fields, sliding: &Sliding, layers: usize) -> Result<Vec<Option<usize>>> {
    let stated = fields.positions("sliding_window")?;
    match sliding {
        Sliding::Never => Ok(vec![None; layers]),
        Sliding::All { unless_stated } => {
            let window = if fields.has("sliding_window") { stated } else { Some(*unless_stated) };
            Ok(vec![window; layers])
        }
        Sliding::AsConfigured => {
            if !fields.flag("use_sliding_window")?.unwrap_or(false) {
                return Ok(vec![None; layers]);
            }
            let missing = || fields.fault("sliding_window", "a positive integer", None);
            let window = stated.ok_or_else(missing)?;
            let slides = match fields.get("layer_types") {
                Some(types) => layer_types(fields, types, layers)?,
                None => {
                    // 0 is valid and means that all layers slide, so this is not read as a size.
                    let full = match fields.get("max_window_layers").and_then(Value::as_u64) {
                        Some(full) => full,
                        None => {
                            let found = fields.get("max_window_layers");
                            return Err(fields.fault("max_window_layers", "an integer", found));
                        }
                    };
                    (0..layers as u64).map(|layer| layer >= full).collect()
                }
            };
            Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
        }
    }
}

/// For each layer, whether `layer_types` gives it a sliding window.
fn layer_types(fields: &Fields, types: &Value, layers: usize) -> Result<Vec<bool>> {
    let list = types.as_array().filter(|list| list.len() == layers).ok_or_else(|| {
        fields.fault("layer_types", &format!("a list of {layers} names"), Some(types))
    })?;
    let slides = |name: &Value| match name.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => {
            let supported = "full_attention, sliding_attention";
            Err(fields.unsupported("layer_types", &name.to_string(), supported))
        }
    };
    list.iter().map(slides).collect()
}
