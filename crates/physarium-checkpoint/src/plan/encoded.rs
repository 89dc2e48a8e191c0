/*!
Projections that are not stored as plain weights: quantised or compressed, so that nobody can count or prune
them before they are decoded.

In: a checkpoint's headers, and the name of its quantisation method in `config.json`. Out: the formats, each
with the number of projections stored in it. A format is recognised by the tensors of a projection's module:
`q_proj.weight_packed` beside `q_proj.weight_scale`, but no `q_proj.weight`.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::names::Named;
use crate::escape::printable;
use crate::open::checkpoint::Checkpoint;
use crate::open::config::config_json;
use crate::open::dtype::Dtype;

/// Components of a name that may follow a projection's module: `weight.quant_state.bitsandbytes__nf4`.
const MAX_COMPONENTS: usize = 3;
/// Tensors of a module that are named in an unknown format.
const SHOWN_PARTS: usize = 4;

/// Weights and masks of `torch.nn.utils.prune`.
const MASKED: &str = "weights and masks of PyTorch";

/// What to do about encoded projections.
pub fn decode_hint(encoded: &[Encoded]) -> &'static str {
    match encoded.iter().all(|encoded| encoded.format == MASKED) {
        true => "hint: torch.nn.utils.prune.remove applies the masks and leaves plain weights",
        false => {
            "hint: decompress or dequantise the model first: plain BF16, F16 or F32 weights are needed"
        }
    }
}

/// Projections that are stored in a format without plain weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded {
    /// Name of the format, printable: `compressed-tensors sparse-24-bitmask`.
    pub format: String,
    /// Number of projections that are stored in it.
    pub projections: u64,
    /// The names of these projections without layer, each once, sorted: `mlp.down_proj`.
    pub names: Vec<String>,
    /// One of the tensors that they are stored in.
    pub example: String,
}

impl Encoded {
    /// Whether the values are in a tensor with the name of a target, which a plan skips for its element type.
    pub fn is_skipped_by_dtype(&self) -> bool {
        self.example.ends_with(".weight")
    }

    /// Whether the format is only an element type, with nothing beside it: the reason for skipping says it too.
    pub(super) fn is_plain_dtype(&self) -> bool {
        Dtype::from_header(&self.format).is_some()
    }
}

impl fmt::Display for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.projections == 1 { "projection is" } else { "projections are" };
        write!(f, "{} {noun} stored as {}", self.projections, self.format)?;
        write!(f, " ({}, …)", printable(&self.example))
    }
}

/// The tensors of one projection's module: what follows the module in their names, with their dtypes.
#[derive(Default)]
struct Parts<'a>(BTreeMap<&'a str, Dtype>);

/// The formats of the projections that are not stored as plain weights, in the order of their names. Empty for
/// an ordinary checkpoint.
pub fn encoded_projections(checkpoint: &Checkpoint) -> Vec<Encoded> {
    let mut modules: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
    for (_, tensor) in checkpoint.tensors() {
        if let Some((module, part)) = module_and_part(&tensor.name) {
            modules.entry(module).or_default().0.insert(part, tensor.dtype);
        }
    }
    modules.retain(|_, parts| parts.are_encoded());
    if modules.is_empty() {
        return Vec::new();
    }
    let method = quantisation_method(checkpoint.dir());
    let mut formats: BTreeMap<String, (u64, BTreeSet<String>, String)> = BTreeMap::new();
    for (module, parts) in modules {
        let (count, names, example) = formats.entry(parts.format(method.as_deref())).or_default();
        *count += 1;
        names.insert(Named::of(&format!("{module}.weight")).projection);
        if example.is_empty() {
            *example = parts.example(module);
        }
    }
    let encoded = |(format, (projections, names, example)): (String, (u64, BTreeSet<_>, _))| {
        Encoded { format, projections, names: names.into_iter().collect(), example }
    };
    formats.into_iter().map(encoded).collect()
}

/// The module of the projection that a tensor belongs to, and the rest of its name. The rest of a plain stack
/// of experts, whose name has no `.weight`, is `weight`.
fn module_and_part(name: &str) -> Option<(&str, &str)> {
    let is_module = |module: &str| Named::of_default_target(&format!("{module}.weight")).is_some();
    let of_stack = |module: &str| Named::of_default_target(module).is_some();
    for (module, part) in [(name, "weight")].into_iter().chain(stack_parts(name)) {
        if !module.ends_with(".weight") && of_stack(module) {
            return Some((module, part));
        }
    }
    let dots = name.rmatch_indices('.').take(MAX_COMPONENTS);
    let mut splits = dots.map(|(at, _)| (&name[..at], &name[at + 1..]));
    splits.find(|(module, _)| is_module(module))
}

/// MXFP4's stacks of experts: `experts.down_proj_blocks`, `experts.down_proj_scales`.
fn stack_parts(name: &str) -> impl Iterator<Item = (&str, &str)> {
    ["blocks", "scales"].into_iter().filter_map(|part| {
        let module = name.strip_suffix(part)?.strip_suffix('_')?;
        Some((module, &name[module.len() + 1..]))
    })
}

/// `quant_method` of the config, such as `awq`.
fn quantisation_method(dir: &Path) -> Option<String> {
    let config = config_json(dir);
    let fields = ["quantization_config", "compression_config"];
    let method = fields.iter().find_map(|field| config[field]["quant_method"].as_str())?;
    Some(printable(method))
}

impl Parts<'_> {
    fn has(&self, part: &str) -> bool {
        self.0.contains_key(part)
    }

    /// Whether one of the parts begins like this.
    fn begin(&self, start: &str) -> bool {
        self.0.keys().any(|part| part.starts_with(start))
    }

    fn weight(&self) -> Option<Dtype> {
        self.0.get("weight").copied()
    }

    /// Whether these hold a projection's weights, but no plain ones. A bias, an adapter or the scales of a cache
    /// alone hold none.
    fn are_encoded(&self) -> bool {
        let other = |part: &&str| {
            let beside = ["bias", "weight"].contains(part) || part.ends_with("_scale");
            !beside && !part.starts_with("lora_") && !part.starts_with("base_layer.")
        };
        match self.weight() {
            Some(dtype) => !dtype.is_prunable(),
            None => self.0.keys().any(other),
        }
    }

    /// Name of the format; `method` is the config's.
    fn format(&self, method: Option<&str>) -> String {
        if let Some(known) = self.known_format(method) {
            return known.to_owned();
        }
        let scaled = self.0.keys().any(|part| part.contains("scale"));
        match (self.weight(), method) {
            (Some(dtype), None) if !scaled => dtype.to_string(),
            (Some(dtype), None) => format!("{dtype} with scales"),
            (Some(dtype), Some(method)) => format!("{dtype} by {method}"),
            (None, Some(method)) => method.to_owned(),
            (None, None) => {
                let parts = self.0.keys().take(SHOWN_PARTS).map(|part| printable(part));
                format!("an unknown format: {}", parts.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Name of a format that the parts alone tell, or together with the config's method.
    fn known_format(&self, method: Option<&str>) -> Option<&'static str> {
        let compressed = ["compressed", "weight_compressed", "weight.compressed"];
        let is_compressed = compressed.iter().any(|part| self.has(part));
        Some(if is_compressed && (self.has("row_offsets") || self.has("weight.row_offsets")) {
            "compressed-tensors sparse-bitmask"
        } else if is_compressed {
            "compressed-tensors sparse-24-bitmask"
        } else if self.has("weight_packed") && self.has("weight_global_scale") {
            "compressed-tensors nvfp4-pack-quantized"
        } else if self.has("weight_packed") && (self.has("meta") || self.has("scale_packed")) {
            "compressed-tensors marlin-24"
        } else if self.has("weight_packed") {
            "compressed-tensors pack-quantized"
        } else if self.has("qweight") {
            match method {
                Some("awq") => "AWQ (packed integers)",
                Some("gptq") => "GPTQ (packed integers)",
                _ if self.has("g_idx") => "GPTQ (packed integers)",
                _ => "GPTQ or AWQ (packed integers)",
            }
        } else if self.has("B") && self.has("s") {
            "Marlin (packed integers)"
        } else if self.begin("weight.quant_state") || self.has("weight.absmax") {
            "bitsandbytes 4-bit"
        } else if self.has("SCB") || self.has("weight.SCB") {
            "bitsandbytes 8-bit"
        } else if self.has("W_q") {
            "HQQ"
        } else if self.has("codes") && self.has("codebooks") {
            "AQLM"
        } else if self.begin("weight._") {
            "Quanto"
        } else if self.has("weight_orig") && self.has("weight_mask") {
            MASKED
        } else if self.has("blocks") && self.has("scales") {
            "MXFP4"
        } else if self.weight() == Some(Dtype::U32) && self.has("scales") {
            "MLX (packed integers)"
        } else {
            return self.fp8_format();
        })
    }

    fn fp8_format(&self) -> Option<&'static str> {
        let scaled = self.has("weight_scale") || self.has("weight_scale_inv");
        match self.weight()? {
            Dtype::F8_E4M3 if scaled => Some("FP8 (F8_E4M3 with scales)"),
            Dtype::F8_E5M2 if scaled => Some("FP8 (F8_E5M2 with scales)"),
            _ => None,
        }
    }

    /// Name of the tensor that holds most: the first that is not a bias.
    fn example(&self, module: &str) -> String {
        let main = ["weight", "weight_packed", "weight_compressed", "qweight"];
        let known = main.into_iter().find(|part| self.has(part));
        let first = || self.0.keys().copied().find(|part| *part != "bias");
        let part = known.or_else(first).unwrap_or_default();
        let joint = if ["blocks", "scales"].contains(&part) { '_' } else { '.' };
        format!("{module}{joint}{part}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(parts: &[(&'static str, Dtype)], method: Option<&str>) -> Option<String> {
        let parts = Parts(parts.iter().copied().collect());
        parts.are_encoded().then(|| parts.format(method))
    }

    #[test]
    fn formats_are_told_by_the_tensors_of_a_module() {
        use Dtype::{BF16, F8_E4M3, F32, I8, I32, I64, U8, U32};
        let cases: [(&[(&str, Dtype)], &str); 17] = [
            (&[("weight_mask", F32), ("weight_orig", F32)], MASKED),
            (
                &[("weight_compressed", BF16), ("bitmask", U8), ("weight_shape", I64)],
                "compressed-tensors sparse-24-bitmask",
            ),
            (
                &[("compressed", BF16), ("bitmask", U8), ("row_offsets", I64)],
                "compressed-tensors sparse-bitmask",
            ),
            (
                &[("weight_packed", I32), ("weight_scale", BF16)],
                "compressed-tensors pack-quantized",
            ),
            (&[("weight_packed", I32), ("meta", U8)], "compressed-tensors marlin-24"),
            (
                &[("weight_packed", U8), ("weight_scale", F8_E4M3), ("weight_global_scale", F32)],
                "compressed-tensors nvfp4-pack-quantized",
            ),
            (
                &[("qweight", I32), ("qzeros", I32), ("scales", BF16), ("g_idx", I32)],
                "GPTQ (packed integers)",
            ),
            (&[("qweight", I32), ("qzeros", I32)], "GPTQ or AWQ (packed integers)"),
            (
                &[("weight", U8), ("weight.absmax", U8), ("weight.quant_map", F32)],
                "bitsandbytes 4-bit",
            ),
            (&[("weight", I8), ("SCB", F32)], "bitsandbytes 8-bit"),
            (&[("weight", F8_E4M3), ("weight_scale_inv", F32)], "FP8 (F8_E4M3 with scales)"),
            (&[("weight", F8_E4M3)], "F8_E4M3"),
            (&[("weight", I8), ("weight_scale", BF16)], "I8 with scales"),
            (&[("weight", U32), ("scales", BF16), ("biases", BF16)], "MLX (packed integers)"),
            (&[("blocks", U8), ("scales", U8)], "MXFP4"),
            (&[("codes", I8), ("codebooks", BF16), ("scales", BF16)], "AQLM"),
            (&[("trellis", U8), ("svh", BF16)], "an unknown format: svh, trellis"),
        ];
        for (parts, expected) in cases {
            assert_eq!(format(parts, None).as_deref(), Some(expected));
        }
        let packed = [("qweight", I32), ("qzeros", I32)];
        assert_eq!(format(&packed, Some("awq")).as_deref(), Some("AWQ (packed integers)"));
        assert_eq!(format(&[("trellis", U8)], Some("exl3")).as_deref(), Some("exl3"));
    }

    #[test]
    fn plain_weights_and_what_lies_beside_them_are_no_format() {
        use Dtype::{BF16, F16, F32};
        for parts in [
            &[("weight", BF16), ("bias", BF16)][..],
            &[("weight", F16), ("k_scale", F32), ("input_scale", F32)],
            &[("bias", BF16)],
            &[("v_scale", F32)],
            &[("lora_A.weight", BF16), ("lora_B.weight", BF16), ("base_layer.weight", BF16)],
        ] {
            assert_eq!(format(parts, None), None, "{parts:?}");
        }
    }

    #[test]
    fn modules_are_split_off_the_names_of_their_tensors() {
        let of = |name: &'static str| module_and_part(name);
        let q = "model.layers.0.self_attn.q_proj";
        assert_eq!(of("model.layers.0.self_attn.q_proj.weight_packed"), Some((q, "weight_packed")));
        let state = "weight.quant_state.bitsandbytes__nf4";
        let name = "model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4";
        assert_eq!(of(name), Some((q, state)));
        let stack = "model.layers.0.mlp.experts.down_proj";
        assert_eq!(of("model.layers.0.mlp.experts.down_proj_blocks"), Some((stack, "blocks")));
        assert_eq!(of(stack), Some((stack, "weight")));
        for other in ["", ".", "lm_head.weight", "model.layers.0.input_layernorm.weight"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
