/*!
The one table that turns a tensor's name into its place in the decoder, and back.

In: names as Hugging Face checkpoints spell them. Out: a [`Site`] that names the same linear map in every
family, with the module's own spelling beside it for reports ([`Named`]); and for a decoder the tensor
names of one checkpoint ([`Naming`]).

A new family that spells known maps in another way needs a row here and nothing else.
*/

use std::collections::HashSet;

use super::site::{Map, Site};

/// Where a language model's names begin, and what its head is called beside it.
struct Root {
    /// Before `layers`, `embed_tokens` and `norm`.
    prefix: &'static str,
    head: &'static str,
}

const ROOTS: [Root; 5] = [
    Root { prefix: "model.", head: "lm_head" },
    Root { prefix: "model.language_model.", head: "lm_head" },
    Root { prefix: "language_model.model.", head: "language_model.lm_head" },
    Root { prefix: "language_model.", head: "lm_head" },
    Root { prefix: "", head: "lm_head" },
];

/// A module of a layer and the maps in it, by the last component of their names.
struct Module {
    /// Its path in the layer; a `#` stands for the number of an expert.
    path: &'static str,
    maps: &'static [(&'static str, Map)],
}

const ATTENTION: [(&str, Map); 5] = [
    ("q_proj", Map::Q),
    ("k_proj", Map::K),
    ("v_proj", Map::V),
    ("o_proj", Map::O),
    ("qkv_proj", Map::Qkv),
];
const MLP: [(&str, Map); 4] = [
    ("gate_proj", Map::Gate),
    ("up_proj", Map::Up),
    ("down_proj", Map::Down),
    ("gate_up_proj", Map::GateUp),
];
/// Mixtral's names; maps only inside `experts.N`.
const NUMBERED: [(&str, Map); 3] = [("w1", Map::Gate), ("w3", Map::Up), ("w2", Map::Down)];

/// Modules whose maps have a place of their own. Maps of others, such as a shared expert beside the routed
/// ones or a vision tower, are [`Map::Other`].
const MODULES: [Module; 7] = [
    Module { path: "self_attn", maps: &ATTENTION },
    Module { path: "mlp", maps: &MLP },
    Module { path: "feed_forward", maps: &MLP },
    Module { path: "mlp.experts.#", maps: &MLP },
    Module { path: "block_sparse_moe.experts.#", maps: &NUMBERED },
    Module { path: "mlp.experts", maps: &MLP },
    Module { path: "feed_forward.experts", maps: &MLP },
];

/// GPT-2's `Conv1D` weights, stored `[in_features, out_features]`.
const CONV1D: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
/// Name components after which the layer index stands.
const LAYER_LISTS: [&str; 4] = ["layers", "h", "blocks", "block"];

/// How a name says that its tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// `[out_features, in_features]`.
    Linear,
    /// `[in_features, out_features]` (`Conv1D`).
    Conv1d,
    /// One matrix for each expert, `[experts, …, …]`; the last two in the order of the family.
    Stacked,
}

/// What a tensor's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its place in the decoder.
    pub site: Site,
    /// Its module path within a layer as the checkpoint spells it, without expert numbers:
    /// `self_attn.q_proj`, `mlp.down_proj`, `block_sparse_moe.experts.w2`.
    pub projection: String,
    pub(super) storage: Storage,
}

impl Named {
    /// The place of the tensor with this name, if its name is that of a default target.
    ///
    /// Fused `qkv_proj` and `gate_up_proj`, MoE experts (`experts.N.down_proj`, Mixtral's
    /// `experts.N.w1`) and stacked experts (`experts.down_proj` with no `.weight`) count.
    pub fn of_default_target(name: &str) -> Option<Named> {
        let parts: Vec<&str> = name.split('.').collect();
        let (module, last) = match parts.as_slice() {
            [module @ .., last, "weight"] => (module, *last),
            [module @ .., last] if module.last() == Some(&"experts") => (module, *last),
            _ => return None,
        };
        let in_expert = matches!(module, [.., "experts", number] if is_number(number));
        let is_in = |maps: &[(&str, Map)]| maps.iter().any(|(name, _)| *name == last);
        let known = is_in(&ATTENTION) || is_in(&MLP) || (in_expert && is_in(&NUMBERED));
        known.then(|| Named::of(name))
    }

    /// The place of any tensor, for targets that the user names.
    pub fn of(name: &str) -> Named {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let parts: Vec<&str> = module.split('.').collect();
        let layer_at = parts
            .windows(2)
            .position(|pair| LAYER_LISTS.contains(&pair[0]) && is_number(pair[1]))
            .map(|at| at + 1);
        let inside = &parts[layer_at.map_or(0, |at| at + 1)..];
        let words: Vec<&str> = inside.iter().copied().filter(|part| !is_number(part)).collect();
        let projection = if words.is_empty() { name.to_owned() } else { words.join(".") };
        let storage = match parts.as_slice() {
            [.., last] if CONV1D.contains(last) && module.len() < name.len() => Storage::Conv1d,
            [.., "experts", _] => Storage::Stacked,
            _ => Storage::Linear,
        };
        let layer = layer_at.and_then(|at| parts[at].parse().ok());
        let site = known_site(&parts, layer_at).unwrap_or_else(|| Site {
            layer,
            map: Map::Other(module.to_owned()),
            expert: None,
        });
        Named { site, projection, storage }
    }
}

/// The site of a map of a language model's layer; `None` for every other name.
fn known_site(parts: &[&str], layer_at: Option<usize>) -> Option<Site> {
    let layer_at = layer_at?;
    let root = match &parts[..layer_at - 1] {
        [] => String::new(),
        root => root.join(".") + ".",
    };
    let is_layer = parts[layer_at - 1] == "layers" && ROOTS.iter().any(|r| r.prefix == root);
    let (last, module) = parts[layer_at + 1..].split_last()?;
    let (expert, path) = match module {
        [path @ .., number] if is_number(number) => {
            (Some(canonical(number)?), path.join(".") + ".#")
        }
        path => (None, path.join(".")),
    };
    let maps = MODULES.iter().filter(|module| module.path == path).flat_map(|m| m.maps);
    let map = maps.into_iter().find(|(name, _)| name == last)?.1.clone();
    let layer = Some(canonical(parts[layer_at])?);
    is_layer.then_some(Site { layer, map, expert })
}

/// How one checkpoint spells the names of its language model.
#[derive(Debug, Clone)]
pub struct Naming {
    root: &'static Root,
    /// Module paths that occur, of [`MODULES`].
    modules: HashSet<&'static str>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}layers", self.prefix)
    }
}

impl Naming {
    /// The spelling of a checkpoint with tensors of these names. Where nothing tells, it is that of most
    /// checkpoints: `model.layers.0.self_attn.q_proj.weight`.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Naming {
        let has = |wanted: &str| names.clone().any(|name| name == wanted);
        let root = ROOTS.iter().find(|root| has(&format!("{}embed_tokens.weight", root.prefix)));
        let root = root.unwrap_or(&ROOTS[0]);
        let mut naming = Naming { root, modules: HashSet::new() };
        let first_layer = format!("{}layers.0.", root.prefix);
        for inside in names.filter_map(|name| name.strip_prefix(&first_layer)) {
            let module = inside.rsplit_once('.').map_or(inside, |(module, _)| module);
            let around = MODULES.iter().filter(|known| begins_with(module, known.path));
            let module = around.max_by_key(|known| known.path.split('.').count());
            naming.modules.extend(module.map(|module| module.path));
        }
        naming
    }

    /// Name of the embedding's tensor.
    pub fn embedding(&self) -> String {
        format!("{}embed_tokens.weight", self.root.prefix)
    }

    /// Name of the final norm's tensor.
    pub fn norm(&self) -> String {
        format!("{}norm.weight", self.root.prefix)
    }

    /// Name of the head's tensor.
    pub fn head(&self) -> String {
        format!("{}.weight", self.root.head)
    }

    /// Path of a module of a layer: `model.layers.3.input_layernorm`.
    pub fn module(&self, layer: u64, module: &str) -> String {
        format!("{}layers.{layer}.{module}", self.root.prefix)
    }

    /// Path of a map's module, without `.weight` or `.bias`. A map that the checkpoint's names do not hold
    /// gets the commonest spelling, for the error that says so.
    pub fn of_site(&self, site: &Site) -> String {
        let Site { layer: Some(layer), map, expert } = site else {
            return match &site.map {
                Map::Other(module) => module.clone(),
                map => map.name().to_owned(),
            };
        };
        if let Map::Other(module) = map {
            return module.clone();
        }
        let spelling = |module: &'static Module| {
            let fits = module.path.ends_with('#') == expert.is_some();
            let (name, _) = module.maps.iter().find(|(_, known)| known == map)?;
            fits.then_some((module, *name))
        };
        let used = |(module, _): &(&Module, &str)| self.modules.contains(module.path);
        let all = || MODULES.iter().filter_map(spelling);
        let (module, name) = all().find(used).or_else(|| all().next()).unwrap_or((&MODULES[1], ""));
        let number = expert.map_or_else(String::new, |expert| expert.to_string());
        self.module(*layer, &format!("{}.{name}", module.path.replace('#', &number)))
    }
}

/// Whether a module's path in a layer is `known`, or inside it.
fn begins_with(module: &str, known: &str) -> bool {
    let mut parts = module.split('.');
    known.split('.').all(|wanted| match (wanted, parts.next()) {
        ("#", Some(part)) => is_number(part),
        (wanted, part) => part == Some(wanted),
    })
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number in the only spelling that counts: `layers.00` is another module than `layers.0`.
fn canonical<N: std::str::FromStr + ToString>(part: &str) -> Option<N> {
    part.parse().ok().filter(|number: &N| number.to_string() == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> Option<(String, Option<u64>)> {
        Named::of_default_target(name).map(|named| (named.projection, named.site.layer))
    }

    #[test]
    fn default_targets_by_name() {
        let cases = [
            ("model.layers.3.self_attn.q_proj.weight", "self_attn.q_proj", Some(3)),
            ("model.layers.12.mlp.down_proj.weight", "mlp.down_proj", Some(12)),
            ("model.layers.0.mlp.experts.63.up_proj.weight", "mlp.experts.up_proj", Some(0)),
            (
                "model.layers.1.block_sparse_moe.experts.7.w2.weight",
                "block_sparse_moe.experts.w2",
                Some(1),
            ),
            ("model.layers.2.self_attn.qkv_proj.weight", "self_attn.qkv_proj", Some(2)),
            ("model.layers.2.mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj", Some(2)),
            ("model.language_model.layers.5.mlp.gate_proj.weight", "mlp.gate_proj", Some(5)),
            ("layers.99999999999999999999.mlp.up_proj.weight", "mlp.up_proj", None),
        ];
        for (name, projection, layer) in cases {
            assert_eq!(label(name), Some((projection.to_owned(), layer)), "{name}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.qweight",
            "model.layers.0.mlp.w1.weight",
            "q_proj",
            "",
        ] {
            assert_eq!(label(name), None, "{name}");
        }
    }

    #[test]
    fn one_map_has_one_site_in_every_family() {
        let site = |layer, map, expert| Site { layer: Some(layer), map, expert };
        let cases = [
            ("model.layers.3.self_attn.q_proj.weight", site(3, Map::Q, None)),
            ("layers.3.self_attn.q_proj.weight", site(3, Map::Q, None)),
            ("model.language_model.layers.3.mlp.up_proj.weight", site(3, Map::Up, None)),
            ("model.layers.1.block_sparse_moe.experts.7.w2.weight", site(1, Map::Down, Some(7))),
            ("model.layers.1.mlp.experts.7.down_proj.weight", site(1, Map::Down, Some(7))),
            ("model.layers.2.mlp.experts.gate_up_proj", site(2, Map::GateUp, None)),
        ];
        for (name, expected) in cases {
            assert_eq!(Named::of(name).site, expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_map_of_the_language_model_keeps_its_whole_name() {
        for name in [
            "vision_tower.encoder.layers.3.self_attn.q_proj",
            "model.layers.00.self_attn.q_proj",
            "model.layers.0.mlp.shared_expert.up_proj",
            "model.layers.0.mlp.experts.01.up_proj",
            "transformer.h.0.attn.c_attn",
            "lm_head",
        ] {
            let named = Named::of(&format!("{name}.weight"));
            assert_eq!(named.site.map, Map::Other(name.to_owned()), "{name}");
        }
    }

    #[test]
    fn names_and_sites_go_both_ways() {
        let spellings = [
            vec!["model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"],
            vec!["embed_tokens.weight", "layers.0.mlp.up_proj.weight"],
            vec![
                "model.language_model.embed_tokens.weight",
                "model.language_model.layers.0.feed_forward.down_proj.weight",
            ],
            vec![
                "model.embed_tokens.weight",
                "model.layers.0.block_sparse_moe.experts.5.w3.weight",
                "model.layers.0.self_attn.o_proj.weight",
            ],
        ];
        for names in spellings {
            let naming = Naming::of(names.iter().copied());
            assert_eq!(naming.embedding(), names[0]);
            for name in &names[1..] {
                assert_eq!(naming.of_site(&Named::of(name).site) + ".weight", **name);
            }
        }
        let usual = Naming::of(std::iter::empty());
        let site = Site { layer: Some(4), map: Map::Gate, expert: None };
        assert_eq!(usual.of_site(&site), "model.layers.4.mlp.gate_proj");
    }

    #[test]
    fn storage_is_read_from_the_name() {
        let storage = |name: &str| Named::of(name).storage;
        assert_eq!(storage("h.0.attn.c_attn.weight"), Storage::Conv1d);
        assert_eq!(storage("h.0.attn.c_attn.bias"), Storage::Linear);
        assert_eq!(storage("model.layers.0.mlp.down_proj.weight"), Storage::Linear);
        assert_eq!(storage("model.layers.0.mlp.experts.down_proj"), Storage::Stacked);
    }
}
