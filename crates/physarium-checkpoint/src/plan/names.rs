/*!
The table that turns a tensor's name into its place in the decoder, and back.

In: names as Hugging Face checkpoints spell them. Out: a [`Site`], which is the same for a linear map of every
family, with the checkpoint's own spelling for reports ([`Named`]); and, for a decoder, the tensor names of one
checkpoint ([`Naming`]).

A family that spells known maps in another way needs only a row in these tables.
*/

use std::collections::HashSet;

use super::place::{Place, is_number, layer_position};
use super::site::{Map, Site};

/// How the names of a language model begin, and the name of its head.
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

/// A module of a layer, and its maps by the last component of their names.
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
/// Mixtral's names, which are maps only inside `experts.N`.
const NUMBERED: [(&str, Map); 3] = [("w1", Map::Gate), ("w3", Map::Up), ("w2", Map::Down)];

/// Modules whose maps have a [`Map`] of their own. Those of other modules, such as a shared expert or a vision
/// tower, are [`Map::Other`].
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

/// How a tensor is stored, as far as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// `[out_features, in_features]`.
    Linear,
    /// `[in_features, out_features]` (`Conv1D`).
    Conv1d,
    /// One matrix for each expert, `[experts, …, …]`, its orientation depending on the family.
    Stacked,
}

/// What a tensor's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its place in the decoder.
    pub site: Site,
    /// Its module path within a layer as the checkpoint spells it, without expert numbers:
    /// `self_attn.q_proj`, `mlp.down_proj`, `block_sparse_moe.experts.w2`. In a tower, such as a vision encoder, the
    /// whole path without numbers.
    pub projection: String,
    pub(super) storage: Storage,
}

impl Named {
    /// The place of the tensor with this name, if that is the name of a default target.
    ///
    /// Default targets include fused `qkv_proj` and `gate_up_proj`, MoE experts (`experts.N.down_proj`, Mixtral's
    /// `experts.N.w1`) and stacked experts (`experts.down_proj` without `.weight`).
    pub fn of_default_target(name: &str) -> Option<Named> {
        let parts: Vec<&str> = name.split('.').collect();
        let (module, last) = match parts.as_slice() {
            [module @ .., last, "weight"] => (module, *last),
            [module @ .., last] if module.last() == Some(&"experts") => (module, *last),
            _ => return None,
        };
        let in_expert = matches!(module, [.., "experts", number] if is_number(number));
        let is_in = |maps: &[(&str, Map)]| maps.iter().any(|(name, _)| *name == last);
        let is_target = is_in(&ATTENTION) || is_in(&MLP) || (in_expert && is_in(&NUMBERED));
        is_target.then(|| Named::of(name))
    }

    /// The place of any tensor, for targets that the user selects.
    pub fn of(name: &str) -> Named {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let parts: Vec<&str> = module.split('.').collect();
        let layer_at = layer_position(&parts);
        // The module of a tower belongs to the name: its q_proj is another projection than the language model's.
        let begin = if Place::of(name).is_in_tower() { None } else { layer_at };
        let inside = &parts[begin.map_or(0, |at| at + 1)..];
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

/// The site of a map in a layer of a language model; `None` for every other name.
fn known_site(parts: &[&str], layer_at: Option<usize>) -> Option<Site> {
    let layer_at = layer_at?;
    let root = match &parts[..layer_at - 1] {
        [] => String::new(),
        root => root.join(".") + ".",
    };
    let is_layer = parts[layer_at - 1] == "layers" && ROOTS.iter().any(|r| r.prefix == root);
    let row = Row::of(&parts[layer_at + 1..])?;
    let layer = Some(canonical(parts[layer_at])?);
    is_layer.then(|| Site { layer, map: row.map.clone(), expert: row.expert })
}

/// The row of the tables that a name in a layer belongs to.
struct Row {
    module: &'static Module,
    /// The last component of the name.
    name: &'static str,
    map: &'static Map,
    /// The number in place of `#` in the module's path.
    expert: Option<u32>,
}

impl Row {
    /// The row of a module's path in a layer, such as `mlp`, `up_proj`.
    fn of(path: &[&str]) -> Option<Row> {
        let (last, module) = path.split_last()?;
        let (expert, path) = match module {
            [path @ .., number] if is_number(number) => {
                (Some(canonical(number)?), path.join(".") + ".#")
            }
            path => (None, path.join(".")),
        };
        let module = MODULES.iter().find(|module| module.path == path)?;
        let (name, map) = module.maps.iter().find(|(name, _)| name == last)?;
        Some(Row { module, name, map, expert })
    }
}

/// How one checkpoint spells the names of its language model.
#[derive(Debug, Clone)]
pub struct Naming {
    root: &'static Root,
    /// Module and last component of each map in the checkpoint's layers, as in [`MODULES`].
    maps: HashSet<(&'static str, &'static str)>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}layers", self.prefix)
    }
}

impl Naming {
    /// The spelling of a checkpoint with tensors of these names. What they leave open is spelt as in most
    /// checkpoints: `model.layers.0.self_attn.q_proj.weight`.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Naming {
        let has = |wanted: &str| names.clone().any(|name| name == wanted);
        let root = ROOTS.iter().find(|root| has(&format!("{}embed_tokens.weight", root.prefix)));
        let root = root.unwrap_or(&ROOTS[0]);
        let layers = format!("{}layers.", root.prefix);
        let row = |name: &'a str| {
            let (number, path) = name.strip_prefix(&layers)?.split_once('.')?;
            canonical::<u64>(number)?;
            let path: Vec<&str> = path.split('.').collect();
            // The last component is `weight`, `bias` or that of a quantised format, except for stacked experts.
            Row::of(&path).or_else(|| Row::of(&path[..path.len() - 1]))
        };
        let maps = names.filter_map(row).map(|row| (row.module.path, row.name)).collect();
        Naming { root, maps }
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

    /// Path of a map's module, without `.weight` or `.bias`. A map that the checkpoint does not have is spelt as
    /// in most checkpoints, for an error that names it.
    pub fn of_site(&self, site: &Site) -> String {
        let Site { layer: Some(layer), map, expert } = site else {
            return site.map.name().to_owned();
        };
        if let Map::Other(module) = map {
            return module.clone();
        }
        let spelling = |module: &'static Module| {
            let fits = module.path.ends_with('#') == expert.is_some();
            let (name, _) = module.maps.iter().find(|(_, known)| known == map)?;
            fits.then_some((module.path, *name))
        };
        let spellings = || MODULES.iter().filter_map(spelling);
        let in_use = |path: &str| self.maps.iter().any(|(module, _)| *module == path);
        let spelling = spellings()
            .find(|spelling| self.maps.contains(spelling))
            .or_else(|| spellings().find(|(path, _)| in_use(path)))
            .or_else(|| spellings().next());
        let Some((path, name)) = spelling else { return self.module(*layer, map.name()) };
        let number = expert.map_or_else(String::new, |expert| expert.to_string());
        self.module(*layer, &format!("{}.{name}", path.replace('#', &number)))
    }
}

/// A number without leading zeros: `layers.00` is another module than `layers.0`.
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
    fn default_targets_are_found_by_their_names() {
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
    fn other_names_are_no_default_targets() {
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
    fn any_other_module_is_a_map_of_its_own_by_its_whole_name() {
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
    }

    #[test]
    fn a_tower_keeps_its_path_in_the_projection() {
        let of = |name: &str| Named::of(name).projection;
        let tower = "model.vision_tower.encoder.layers";
        assert_eq!(
            of(&format!("{tower}.3.self_attn.q_proj.weight")),
            format!("{tower}.self_attn.q_proj")
        );
        assert_eq!(of("mtp.layers.0.mlp.up_proj.weight"), "mtp.layers.mlp.up_proj");
        assert_eq!(of("model.language_model.layers.3.mlp.up_proj.weight"), "mlp.up_proj");
        assert_eq!(of("transformer.h.3.attn.c_attn.weight"), "attn.c_attn");
    }

    fn naming(names: &[&str]) -> Naming {
        Naming::of(names.iter().copied())
    }

    fn site(layer: u64, map: Map, expert: Option<u32>) -> Site {
        Site { layer: Some(layer), map, expert }
    }

    #[test]
    fn without_names_the_spelling_is_that_of_most_checkpoints() {
        // Not of a language model's layer, or not the canonical number of one.
        let odd = ["layers", "model.layers.0", "model.layers.00.feed_forward.up_proj.weight", ""];
        for usual in [naming(&[]), naming(&odd)] {
            assert_eq!(usual.of_site(&site(4, Map::Gate, None)), "model.layers.4.mlp.gate_proj");
            let expert = usual.of_site(&site(4, Map::Down, Some(7)));
            assert_eq!(expert, "model.layers.4.mlp.experts.7.down_proj");
            assert_eq!(
                (usual.head(), usual.norm()),
                ("lm_head.weight".into(), "model.norm.weight".into())
            );
        }
    }

    #[test]
    fn every_layer_counts_and_so_do_quantised_names() {
        let moe = naming(&[
            "model.layers.1.block_sparse_moe.experts.0.w3.weight",
            "model.layers.1.block_sparse_moe.gate.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
        ]);
        let expert = moe.of_site(&site(1, Map::Up, Some(2)));
        assert_eq!(expert, "model.layers.1.block_sparse_moe.experts.2.w3");
        assert_eq!(moe.of_site(&site(0, Map::Up, None)), "model.layers.0.mlp.up_proj");
        let packed = naming(&[
            "language_model.model.layers.5.feed_forward.up_proj.qweight",
            "language_model.model.layers.5.feed_forward.up_proj.scales",
            "language_model.model.embed_tokens.weight",
            "vision_tower.layers.0.mlp.up_proj.weight",
        ]);
        let gate = packed.of_site(&site(5, Map::Gate, None));
        assert_eq!(gate, "language_model.model.layers.5.feed_forward.gate_proj");
        assert_eq!(packed.head(), "language_model.lm_head.weight");
    }

    #[test]
    fn a_map_is_spelt_as_in_the_module_that_has_it() {
        let stacked = [
            "model.layers.0.mlp.gate.weight",
            "model.layers.0.mlp.shared_expert.down_proj.weight",
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.mlp.experts.down_proj",
        ];
        let naming = naming(&stacked);
        for name in &stacked[1..] {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            assert_eq!(naming.of_site(&Named::of(name).site), module);
        }
    }

    #[test]
    fn sites_that_no_checkpoint_has_are_named_too() {
        let naming = naming(&[]);
        let other = Site { layer: None, map: Map::Other("lm_head".into()), expert: None };
        assert_eq!(naming.of_site(&other), "lm_head");
        assert_eq!(naming.of_site(&Site { map: Map::Q, ..other }), "q_proj");
        assert_eq!(naming.of_site(&site(1, Map::Q, Some(3))), "model.layers.1.q_proj");
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
