/*!
Inspection: what a checkpoint holds and what would be pruned, from headers alone.
*/

use std::collections::BTreeMap;

use physarium_checkpoint::{Checkpoint, Dtype, Layout, PlannedTensor, TargetPlan, printable};
use serde::{Deserialize, Serialize};

use crate::count::skipped;
use crate::render::aligned;
use crate::report::{Model, Skipped, Target};
use crate::share::{Share, grouped, percent};

/// Schema of [`Inspection`] as JSON.
const SCHEMA: &str = "physarium.inspect/1";

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Schema.
    pub schema: String,
    /// The weights' files with their sizes.
    pub shards: Vec<ShardSize>,
    /// The whole checkpoint.
    pub model: Model,
    /// What would be pruned.
    pub target: Target,
    /// The model by element type.
    pub dtypes: Vec<DtypeSum>,
    /// The targets by projection.
    pub projections: Vec<ProjectionSum>,
    /// The targets one by one.
    pub tensors: Vec<InspectedTensor>,
    /// The rest one by one, with why.
    pub skipped: Vec<Skipped>,
    /// Oddities.
    pub warnings: Vec<String>,
}

/// A file of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSize {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Tensors in it.
    pub tensors: u64,
}

/// What there is of an element type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtypeSum {
    /// The type.
    pub dtype: Dtype,
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
}

/// The targets of a projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionSum {
    /// Its name.
    pub projection: String,
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
    /// Share of the model.
    pub of_model: Share,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its projection's name.
    pub role: String,
    /// Its layer, where its name has one.
    pub layer: Option<u64>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub elements: u64,
    /// Matrices in it that are pruned by themselves: one, or more of a fused tensor or stacked experts.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub matrices: u64,
    /// The file that holds it.
    pub shard: String,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// What the headers and the plan say.
pub fn inspect(checkpoint: &Checkpoint, plan: &TargetPlan) -> Inspection {
    let model = Model { tensors: plan.tensors.len() as u64, elements: plan.model_elements() };
    let (n_targets, elements) = (plan.targets().count() as u64, plan.target_elements());
    let of_model = Share::new(elements, model.elements, "model");
    let target = Target { tensors: n_targets, elements, of_model };
    let mut dtypes: BTreeMap<&str, DtypeSum> = BTreeMap::new();
    for PlannedTensor { input: info, .. } in &plan.tensors {
        let empty = DtypeSum { dtype: info.dtype, tensors: 0, elements: 0 };
        let sum = dtypes.entry(info.dtype.name()).or_insert(empty);
        sum.tensors += 1;
        sum.elements += info.elements;
    }
    let tensors: Vec<InspectedTensor> = plan
        .targets()
        .map(|tensor| {
            let named = tensor.projection();
            InspectedTensor {
                name: tensor.input.name.clone(),
                role: named.projection.clone(),
                layer: named.site.layer,
                dtype: tensor.input.dtype,
                shape: tensor.input.shape.clone(),
                elements: tensor.input.elements,
                matrices: tensor.views.len() as u64,
                shard: checkpoint.shards()[tensor.shard].name.clone(),
            }
        })
        .collect();
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in &tensors {
        let sum = sums.entry(&tensor.role).or_default();
        *sum = (sum.0 + 1, sum.1 + tensor.elements);
    }
    let project = |(name, (count, part)): (&str, (u64, u64))| ProjectionSum {
        projection: name.to_owned(),
        tensors: count,
        elements: part,
        of_target: Share::new(part, target.elements, "target"),
        of_model: Share::new(part, model.elements, "model"),
    };
    Inspection {
        schema: SCHEMA.to_owned(),
        shards: checkpoint
            .shards()
            .iter()
            .map(|shard| ShardSize {
                name: shard.name.clone(),
                size_bytes: shard.size_bytes(),
                tensors: shard.tensors.len() as u64,
            })
            .collect(),
        dtypes: dtypes.into_values().collect(),
        projections: sums.into_iter().map(project).collect(),
        skipped: plan.tensors.iter().filter_map(skipped).collect(),
        warnings: checkpoint.warnings().iter().map(ToString::to_string).collect(),
        model,
        target,
        tensors,
    }
}

/// Which tensors a printed inspection names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Sums only.
    Sums,
    /// Every tensor.
    Tensors,
}

impl Inspection {
    /// The inspection for a terminal.
    pub fn text(&self, layout: Layout, listing: Listing) -> String {
        let bytes: u64 = self.shards.iter().map(|shard| shard.size_bytes).sum();
        let files = match (layout, self.shards.as_slice()) {
            (Layout::Single, _) => "1 file".to_owned(),
            (Layout::Sharded, shards) => format!("{} shards with index", shards.len()),
        };
        let dtypes: Vec<String> = self
            .dtypes
            .iter()
            .map(|d| format!("{} ({} tensors)", d.dtype, grouped(d.tensors)))
            .collect();
        let mut out = format!("{files}, {} bytes, {}\n\n", grouped(bytes), dtypes.join(", "));
        out += &aligned(self.rows().into_iter());
        let reasons = self.skip_reasons();
        if !reasons.is_empty() {
            let header = ["skipped because", "tensors", "elements", "of model"].map(str::to_owned);
            out += "\n";
            out += &aligned(std::iter::once(header.to_vec()).chain(reasons));
        }
        if listing == Listing::Tensors {
            out += "\n";
            for tensor in &self.tensors {
                let (name, role) = (printable(&tensor.name), printable(&tensor.role));
                let (dtype, shape) = (tensor.dtype, &tensor.shape);
                out += &format!("target   {name}  {role}  {dtype} {shape:?}\n");
            }
            for tensor in &self.skipped {
                out += &format!("skipped  {}  {}\n", printable(&tensor.name), tensor.reason);
            }
        }
        for warning in &self.warnings {
            out += &format!("note: {warning}\n");
        }
        out
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let share = |share: &Share| format!("{} %", percent(share.part, share.whole, 2));
        let header = ["", "tensors", "elements", "of target", "of model"].map(str::to_owned);
        let row = |what: &str, tensors: u64, elements: u64, target: String, model: String| {
            vec![what.to_owned(), grouped(tensors), grouped(elements), target, model]
        };
        let (model, target) = (&self.model, &self.target);
        let none = String::new;
        let mut rows = vec![
            header.to_vec(),
            row("model", model.tensors, model.elements, none(), none()),
            row("target", target.tensors, target.elements, none(), share(&target.of_model)),
        ];
        rows.extend(self.projections.iter().map(|p| {
            let name = format!("  {}", printable(&p.projection));
            row(&name, p.tensors, p.elements, share(&p.of_target), share(&p.of_model))
        }));
        rows
    }

    fn skip_reasons(&self) -> Vec<Vec<String>> {
        let mut reasons: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for tensor in &self.skipped {
            let sum = reasons.entry(&tensor.reason).or_default();
            *sum = (sum.0 + 1, sum.1 + tensor.elements);
        }
        let row = |(reason, (tensors, elements)): (&str, (u64, u64))| {
            let share = format!("{} %", percent(elements, self.model.elements, 2));
            vec![reason.to_owned(), grouped(tensors), grouped(elements), share]
        };
        reasons.into_iter().map(row).collect()
    }
}
