//! Where a tensor is in a checkpoint, by the components of its name.

use super::towers::is_tower;

/// Components of a name that the index of a layer follows.
const LAYER_LISTS: [&str; 4] = ["layers", "h", "blocks", "block"];

/// Where a tensor is in a checkpoint, by the components of its name.
pub(super) struct Place<'a> {
    /// Path of the module that has the layers, such as `model`; without layers, that of the module around the
    /// tensor's own.
    pub module: &'a str,
    /// The word before the number of the layer, such as `layers`.
    pub list: &'a str,
    /// The number of the layer, if the name has one.
    pub layer: Option<u64>,
    /// The components after the number of the layer, or after the module, without `weight`.
    pub inside: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// The place of the tensor with this name.
    pub fn of(name: &'a str) -> Place<'a> {
        let path = name.strip_suffix(".weight").unwrap_or(name);
        let parts: Vec<&str> = path.split('.').collect();
        let upto = |count: usize| {
            let length: usize = parts[..count].iter().map(|part| part.len() + 1).sum();
            &path[..length.saturating_sub(1)]
        };
        match layer_position(&parts) {
            Some(at) => Place {
                module: upto(at - 1),
                list: parts[at - 1],
                layer: parts[at].parse().ok(),
                inside: parts[at + 1..].to_vec(),
            },
            None => {
                let number = parts.iter().position(|part| is_number(part));
                let count = number.unwrap_or(parts.len().saturating_sub(2));
                Place {
                    module: upto(count),
                    list: "",
                    layer: None,
                    inside: parts[count..].to_vec(),
                }
            }
        }
    }

    /// Whether its module is not a language model.
    pub fn is_in_tower(&self) -> bool {
        is_tower(&self.module.split('.').collect::<Vec<_>>())
    }

    /// The components inside the layer as a glob: `mlp.experts.*.up_proj`.
    pub fn pattern(&self) -> String {
        let part = |part: &&'a str| if is_number(part) { "*" } else { *part };
        self.inside.iter().map(part).collect::<Vec<_>>().join(".")
    }
}

/// Index of the component that is the number of a layer.
pub(super) fn layer_position(parts: &[&str]) -> Option<usize> {
    let is_layer = |pair: &[&str]| LAYER_LISTS.contains(&pair[0]) && is_number(pair[1]);
    parts.windows(2).position(is_layer).map(|at| at + 1)
}

/// Whether a component is a number.
pub(super) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}
