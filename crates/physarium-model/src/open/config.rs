/*!
The shape of a decoder, read from `config.json`.

In: `config.json` as transformers 4.x (`rope_theta`, `rope_scaling`) or 5.x (`rope_parameters`) writes it.
Out: a [`Config`]; families differ only in its values, and a row of `families` says how each is read. A valid
setting that the decoder does not support is an error, never ignored.
*/

use physarium_kernels::Activation;
use serde_json::Value;

use super::families::{Bias, Block, Defaults, Described, Family, Sliding};
use super::fields::Fields;
use super::files::ModelFiles;
use super::notes::Note;
use super::rope::{Rope, RopeRead};
use super::rope_fields::{FULL, SLIDING};
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

/// How the weights of norms are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormWeights {
    /// As they are.
    Whole,
    /// Less one (Gemma).
    LessOne,
}

/// The shape of a decoder. Sizes are numbers of features, heads, layers or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `model_type`: `llama`, `mistral`, `qwen2`, `qwen3`, `gemma3_text`.
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
    /// That of layers with a sliding window, where they have one of their own (Gemma 3).
    pub local_rope: Option<Rope>,
    /// Factor of embeddings.
    pub embedding_scale: f32,
    /// Factor of the scores of attention.
    pub score_scale: f32,
    /// Activation function of the gates.
    pub activation: Activation,
    /// How the weights of norms are stored.
    pub norm_weights: NormWeights,
    /// Whether the outputs of o and down are normalised before they are added to the residual stream (Gemma 3).
    pub output_norms: bool,
    /// Whether each sequence that the family was trained on began with the token for the beginning of a text, so that a
    /// window without it has a far higher perplexity (Gemma).
    pub needs_bos: bool,
    /// Which maps have a bias.
    pub biases: Biases,
    /// Whether queries and keys are normalised head by head (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// Whether the config says that the head is the embedding. What is stored decides.
    pub tied: bool,
    /// For each layer the number of positions that a query attends to, including its own; all if `None`.
    pub windows: Vec<Option<usize>>,
    /// What the user should know about how fields were read.
    pub(crate) notes: Vec<Note>,
}

impl Config {
    /// Reads `config.json` of a model.
    ///
    /// # Errors
    /// `Checkpoint` if the file is missing, or a field is missing or wrong; `Unsupported` for a model type,
    /// an activation or a position embedding that this decoder does not support.
    pub fn read(files: &ModelFiles) -> Result<Config> {
        let whole = Fields::read(files, "config.json")?;
        let Described { fields, family } = Described::of(&whole)?;
        let defaults = family.block.defaults();
        let or_default = |field, default: Option<usize>| match (fields.size(field)?, default) {
            (None, None) => fields.required_size(field),
            (stated, default) => Ok(stated.or(default).expect("one of them")),
        };
        let of = |default: fn(&Defaults) -> usize| defaults.as_ref().map(default);
        let hidden = fields.required_size("hidden_size")?;
        let heads = or_default("num_attention_heads", of(|default| default.heads))?;
        let unless_stated = of(|default| default.kv_heads).unwrap_or(heads);
        let kv_heads = fields.size("num_key_value_heads")?.unwrap_or(unless_stated);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads ({heads})");
            let found = Value::from(kv_heads);
            return Err(fields.fault("num_key_value_heads", &expected, Some(&found)));
        }
        let unless_stated = of(|default| default.head_dim).unwrap_or(hidden / heads);
        let head_dim = fields.size("head_dim")?.unwrap_or(unless_stated);
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
        let mut notes = quantisation(&whole)?;
        let block = BlockFields::read(&fields, family.block, (hidden, head_dim))?;
        let (RopeRead { rope, extended_positions }, local_rope) = match family.block {
            Block::Llama => (RopeRead::of(&fields, head_dim, &mut notes)?, None),
            Block::Gemma3 => {
                let [rope, local] = RopeRead::by_layer_type(&fields, head_dim, &mut notes)?;
                (RopeRead { rope, extended_positions: None }, Some(local))
            }
        };
        let positions = fields.positions("max_position_embeddings")?;
        let max_positions = positions.or(of(|default| default.positions));
        Ok(Config {
            model_type: family.model_type.to_owned(),
            hidden,
            intermediate: fields.required_size("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: or_default("vocab_size", of(|default| default.vocabulary))?,
            max_positions: max_positions.map(|most| most.max(extended_positions.unwrap_or(0))),
            epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope,
            local_rope,
            embedding_scale: block.embedding_scale,
            score_scale: block.score_scale,
            activation: block.activation,
            norm_weights: block.norm_weights,
            output_norms: family.block == Block::Gemma3,
            needs_bos: family.block == Block::Gemma3,
            biases: biases(&fields, family)?,
            qk_norm: family.qk_norm,
            tied: tied(&whole, &fields)?.unwrap_or(family.block == Block::Gemma3),
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

/// What the fields of a block say.
struct BlockFields {
    embedding_scale: f32,
    score_scale: f32,
    activation: Activation,
    norm_weights: NormWeights,
}

impl BlockFields {
    fn read(
        fields: &Fields,
        block: Block,
        (hidden, head_dim): (usize, usize),
    ) -> Result<BlockFields> {
        match block {
            Block::Llama => {
                match fields.text("hidden_act")?.unwrap_or("silu") {
                    "silu" | "swish" => {}
                    other => return Err(fields.unsupported("hidden_act", other, "silu")),
                }
                Ok(BlockFields {
                    embedding_scale: 1.0,
                    score_scale: 1.0 / (head_dim as f32).sqrt(),
                    activation: Activation::Silu,
                    norm_weights: NormWeights::Whole,
                })
            }
            Block::Gemma3 => {
                match fields.text("hidden_activation")?.unwrap_or("gelu_pytorch_tanh") {
                    "gelu_pytorch_tanh" => {}
                    other => {
                        let supported = "gelu_pytorch_tanh";
                        return Err(fields.unsupported("hidden_activation", other, supported));
                    }
                }
                for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
                    if let Some(cap) = fields.number(field)? {
                        return Err(fields.unsupported(field, &cap.to_string(), "null"));
                    }
                }
                if fields.flag("use_bidirectional_attention")?.unwrap_or(false) {
                    let field = "use_bidirectional_attention";
                    return Err(fields.unsupported(field, "true", "false"));
                }
                let scalar = fields.number("query_pre_attn_scalar")?.unwrap_or(256.0);
                Ok(BlockFields {
                    embedding_scale: (hidden as f64).sqrt() as f32,
                    score_scale: 1.0 / (scalar as f32).sqrt(),
                    activation: Activation::GeluTanh,
                    norm_weights: NormWeights::LessOne,
                })
            }
        }
    }
}

/// What a config says of the head: of the language model, or else of the whole.
fn tied(whole: &Fields, fields: &Fields) -> Result<Option<bool>> {
    let field = "tie_word_embeddings";
    Ok(fields.flag(field)?.or(whole.flag(field)?))
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
    let by_type = |types: &Value, window| -> Result<Vec<Option<usize>>> {
        let slides = layer_types(fields, types, layers)?;
        Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
    };
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
            if let Some(types) = fields.get("layer_types") {
                return by_type(types, window);
            }
            // 0 is valid and means that all layers slide, so this is not read as a size.
            let full = match fields.get("max_window_layers").and_then(Value::as_u64) {
                Some(full) => full,
                None => {
                    let found = fields.get("max_window_layers");
                    return Err(fields.fault("max_window_layers", "an integer", found));
                }
            };
            let window_of = |layer: u64| (layer >= full).then_some(window);
            Ok((0..layers as u64).map(window_of).collect())
        }
        Sliding::AllBut { each, unless_stated } => {
            let window = match (stated, fields.has("sliding_window")) {
                (None, true) => {
                    return Err(fields.fault("sliding_window", "a positive integer", None));
                }
                (stated, _) => stated.unwrap_or(*unless_stated),
            };
            if let Some(types) = fields.get("layer_types") {
                return by_type(types, window);
            }
            let each = fields.size("sliding_window_pattern")?.unwrap_or(*each);
            let window_of = |layer: usize| (!(layer + 1).is_multiple_of(each)).then_some(window);
            Ok((0..layers).map(window_of).collect())
        }
    }
}

/// For each layer, whether `layer_types` gives it a sliding window.
fn layer_types(fields: &Fields, types: &Value, layers: usize) -> Result<Vec<bool>> {
    let list = types.as_array().filter(|list| list.len() == layers).ok_or_else(|| {
        fields.fault("layer_types", &format!("a list of {layers} names"), Some(types))
    })?;
    let slides = |name: &Value| match name.as_str() {
        Some(SLIDING) => Ok(true),
        Some(FULL) => Ok(false),
        _ => {
            let supported = format!("{FULL}, {SLIDING}");
            Err(fields.unsupported("layer_types", &name.to_string(), &supported))
        }
    };
    list.iter().map(slides).collect()
}
