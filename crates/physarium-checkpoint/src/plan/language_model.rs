/*!
Which tensors of a checkpoint belong to its language model.

In: names, sizes and the config. Out: for a projection in another module (a vision or audio tower, a head that
predicts further tokens) or in a layer beyond the decoder's, the reason why it is not a default target; and the
matrices of the decoder's layers that the default leaves alone, with a `--target` pattern that takes them.
*/

use std::collections::{BTreeMap, BTreeSet};

use super::family::Family;
use super::names::Named;
use super::place::Place;
use super::skip_reason::SkipReason;
use super::towers::is_tower;
use crate::open::header::TensorInfo;

/// The language model of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct LanguageModel {
    /// Path of the module with its layers, such as `model`; `None` if no tensor is in a layer of one.
    module: Option<String>,
    /// Number of its layers by the config.
    layers: Option<u64>,
}

/// Matrices of the decoder's layers that the default targets do not include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAlone {
    /// Their elements.
    pub elements: u64,
    /// Elements of all matrices of the decoder's layers.
    pub of_layers: u64,
    /// A pattern for `--target` that takes all matrices of the decoder's layers.
    pub pattern: String,
}

/// Names of matrices that choose experts: a few weights that decide about many.
const ROUTERS: [&str; 3] = ["gate", "router", "shared_expert_gate"];

impl LanguageModel {
    /// Finds the language model: the module with default targets, or without any the one with matrices in layers,
    /// whose name is not that of a tower; of several, the one with the most elements.
    pub fn of<'a>(tensors: impl Iterator<Item = &'a TensorInfo> + Clone, family: &Family) -> Self {
        let largest = |counts: &dyn Fn(&TensorInfo) -> bool| {
            let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
            for info in tensors.clone().filter(|info| counts(info)) {
                let place = Place::of(&info.name);
                if place.layer.is_some() && !place.is_in_tower() {
                    let size = sizes.entry(place.module).or_default();
                    *size = size.saturating_add(info.elements);
                }
            }
            sizes.into_iter().max_by_key(|(_, size)| *size).map(|(module, _)| module.to_owned())
        };
        let module = largest(&|info| Named::of_default_target(&info.name).is_some())
            .or_else(|| largest(&is_layer_matrix));
        LanguageModel { module, layers: family.layers }
    }

    /// Why the tensor of this name is not a default target though its last components are those of one.
    pub fn reason_against(&self, name: &str) -> Option<SkipReason> {
        let place = Place::of(name);
        let other_module = || SkipReason::OtherModule(place.module.to_owned());
        match (place.layer, &self.module) {
            (None, _) => place.is_in_tower().then(other_module),
            (Some(_), Some(module)) if place.module != module => Some(other_module()),
            (Some(layer), _) => {
                let layers = self.layers.filter(|layers| layer >= *layers)?;
                Some(SkipReason::BeyondDecoder { layers })
            }
        }
    }

    /// What the default leaves alone in the decoder's layers; `None` if that is nothing.
    pub fn left_alone<'a>(
        &self,
        tensors: impl Iterator<Item = &'a TensorInfo>,
    ) -> Option<LeftAlone> {
        let module = self.module.as_deref()?;
        let (mut elements, mut of_layers) = (0, 0);
        let mut list = "";
        let mut paths = BTreeSet::new();
        for info in tensors.filter(|info| is_layer_matrix(info)) {
            let place = Place::of(&info.name);
            if place.module != module || self.reason_against(&info.name).is_some() {
                continue;
            }
            of_layers += info.elements;
            if Named::of_default_target(&info.name).is_none() {
                elements += info.elements;
            }
            list = place.list;
            paths.insert(place.pattern());
        }
        let paths: Vec<String> = paths.into_iter().collect();
        let prefix = if module.is_empty() { String::new() } else { format!("{module}.") };
        let pattern = match paths.as_slice() {
            [one] => format!("{prefix}{list}.*.{one}.weight"),
            all => format!("{prefix}{list}.*.{{{}}}.weight", all.join(",")),
        };
        (elements > 0).then_some(LeftAlone { elements, of_layers, pattern })
    }
}

/// Whether a tensor is a matrix of weights in a layer that could be pruned.
fn is_layer_matrix(info: &TensorInfo) -> bool {
    let place = Place::of(&info.name);
    let is_map = place.inside.last().is_some_and(|last| !ROUTERS.contains(last));
    info.name.ends_with(".weight")
        && info.shape.len() == 2
        && info.dtype.is_prunable()
        && place.layer.is_some()
        && is_map
        && !is_tower(&place.inside)
}
