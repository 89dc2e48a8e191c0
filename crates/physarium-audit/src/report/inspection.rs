//! Inspection: what a checkpoint contains and what would be pruned, from headers alone.

use std::collections::{BTreeMap, HashMap};

use physarium_checkpoint::{
    Checkpoint, Dtype, Encoded, HubSource, Layout, ModelSource, PlannedTensor, Shard, StoreSource,
    TargetPlan, encoded_projections, printable, sorted_naturally,
};
use serde::{Deserialize, Serialize};

use super::audit::{Model, Skipped, Target};
use super::kinds::{NOT_A_TARGET, kind, pattern};
use super::share::{Share, grouped};
use super::summary::SummaryRow;
use super::table::aligned;
use crate::notes::checkpoint::{checkpoint_notes, encoded_note};

/// Schema of [`Inspection`] as JSON.
const SCHEMA: &str = "physarium.inspect/1";
/// Kinds of skipped tensors that are listed by name.
const SHOWN_KINDS: usize = 24;

/// What a checkpoint contains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// `physarium.inspect/1`.
    pub schema: String,
    /// Where the checkpoint is on the hub or in a store; `None` for any other directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ModelSource>,
    /// The weight files with their sizes.
    pub shards: Vec<ShardSize>,
    /// The whole checkpoint.
    pub model: Model,
    /// What would be pruned.
    pub target: Target,
    /// The model by element type.
    pub dtypes: Vec<DtypeSum>,
    /// The targets by projection.
    pub projections: Vec<ProjectionSum>,
    /// The targets, one entry per tensor.
    pub tensors: Vec<InspectedTensor>,
    /// The other tensors, each with the reason.
    pub skipped: Vec<Skipped>,
    /// Projections that cannot be pruned because they are not stored as plain weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoded: Vec<Encoded>,
    /// Irregularities of the checkpoint.
    pub warnings: Vec<String>,
}

/// A file of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSize {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Number of tensors in it.
    pub tensors: u64,
}

/// Tensors and elements of one element type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtypeSum {
    /// The type.
    pub dtype: Dtype,
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
}

/// The targets of one projection.
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
    /// Its layer; `None` if its name has none.
    pub layer: Option<u64>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub elements: u64,
    /// Number of matrices in it that are pruned separately: more than one in a fused tensor or a stack of
    /// experts.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub matrices: u64,
    /// The file that contains it.
    pub shard: String,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// Inspects headers and plan.
pub fn inspect(checkpoint: &Checkpoint, plan: &TargetPlan) -> Inspection {
    let model = Model::of(checkpoint);
    let target = Target::of(plan, &model);
    let shard = |shard: &Shard| ShardSize {
        name: shard.name.clone(),
        size_bytes: shard.size_bytes(),
        tensors: shard.tensors.len() as u64,
    };
    let tensor = |tensor: &PlannedTensor| {
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
    };
    let tensors = sorted_naturally(plan.targets().map(tensor), |tensor| &tensor.name);
    let encoded = encoded_projections(checkpoint);
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in &tensors {
        let (count, elements) = sums.entry(&tensor.role).or_default();
        (*count, *elements) = (*count + 1, *elements + tensor.elements);
    }
    let project = |(name, (tensors, elements)): (&str, (u64, u64))| ProjectionSum {
        projection: name.to_owned(),
        tensors,
        elements,
        of_target: target.share(elements),
        of_model: model.share(elements),
    };
    Inspection {
        schema: SCHEMA.to_owned(),
        source: ModelSource::of_dir(checkpoint.dir()),
        shards: checkpoint.shards().iter().map(shard).collect(),
        dtypes: dtypes(plan),
        projections: sums.into_iter().map(project).collect(),
        skipped: Skipped::all(plan),
        warnings: checkpoint_notes(checkpoint),
        encoded,
        model,
        target,
        tensors,
    }
}

/// Sums over all tensors of each element type, by the type's name.
fn dtypes(plan: &TargetPlan) -> Vec<DtypeSum> {
    let mut sums: BTreeMap<&str, DtypeSum> = BTreeMap::new();
    for PlannedTensor { input: info, .. } in &plan.tensors {
        let empty = DtypeSum { dtype: info.dtype, tensors: 0, elements: 0 };
        let sum = sums.entry(info.dtype.name()).or_insert(empty);
        sum.tensors += 1;
        sum.elements += info.elements;
    }
    sums.into_values().collect()
}

/// Which tensors a printed inspection lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// None, only sums.
    Sums,
    /// Every tensor.
    Tensors,
}

impl Inspection {
    /// The inspection for a terminal.
    pub fn text(&self, layout: Layout, listing: Listing) -> String {
        let mut out = String::new();
        match &self.source {
            Some(ModelSource::Hub(HubSource { hub, commit, .. })) => {
                out += &format!("{hub} at commit {commit}\n");
            }
            Some(ModelSource::Store(StoreSource { store })) => out += &format!("{store}\n"),
            None => {}
        }
        out += &self.files(layout);
        out += &aligned(self.rows().into_iter());
        let reasons = self.skipped_by_kind();
        if !reasons.is_empty() {
            let header = ["not pruned", "tensors", "elements", "of model"].map(str::to_owned);
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
                let kind = kind(tensor, &self.encoded);
                out += &format!("skipped  {}  {kind}\n", printable(&tensor.name));
            }
        }
        let targets = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        if let Some(note) = encoded_note(&self.encoded, &targets) {
            out += &format!("note: {note}\n");
        }
        for warning in &self.warnings {
            out += &format!("note: {warning}\n");
        }
        out
    }

    /// Number of files, their bytes and element types, and an empty line.
    fn files(&self, layout: Layout) -> String {
        let bytes: u64 = self.shards.iter().map(|shard| shard.size_bytes).sum();
        let files = match layout {
            Layout::Single => "1 file".to_owned(),
            Layout::Sharded => format!("{} shards with index", self.shards.len()),
        };
        let dtype = |sum: &DtypeSum| format!("{} ({} tensors)", sum.dtype, grouped(sum.tensors));
        let dtypes: Vec<String> = self.dtypes.iter().map(dtype).collect();
        format!("{files}, {} bytes, {}\n\n", grouped(bytes), dtypes.join(", "))
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let (model, target) = (&self.model, &self.target);
        let mut rows = vec![SummaryRow::header(), model.row().cells(), target.row().cells()];
        rows.extend(self.projections.iter().map(|projection| {
            let row = SummaryRow {
                what: &format!("  {}", printable(&projection.projection)),
                tensors: Some(projection.tensors),
                elements: Some(projection.elements),
                of_target: Some(projection.of_target.clone()),
                of_model: Some(projection.of_model.clone()),
            };
            row.cells()
        }));
        rows
    }

    /// The tensors that are not targets, by kind, or by name if they are of no known kind.
    fn skipped_by_kind(&self) -> Vec<Vec<String>> {
        let mut kinds: Vec<(String, u64, u64)> = Vec::new();
        let mut at: HashMap<String, usize> = HashMap::new();
        for tensor in &self.skipped {
            let kind = match kind(tensor, &self.encoded) {
                kind if kind == NOT_A_TARGET => pattern(&tensor.name),
                kind => kind,
            };
            let at = *at.entry(kind.clone()).or_insert_with(|| {
                kinds.push((kind, 0, 0));
                kinds.len() - 1
            });
            kinds[at].1 += 1;
            kinds[at].2 += tensor.elements;
        }
        // The largest first; those that are many are told by their sum.
        kinds.sort_by_key(|(_, _, elements)| std::cmp::Reverse(*elements));
        let rest = kinds.split_off(kinds.len().min(SHOWN_KINDS));
        if !rest.is_empty() {
            let (tensors, elements) =
                (rest.iter().map(|k| k.1).sum(), rest.iter().map(|k| k.2).sum());
            kinds.push((format!("{} other kinds", grouped(rest.len() as u64)), tensors, elements));
        }
        let row = |(kind, tensors, elements): (String, u64, u64)| {
            vec![kind, grouped(tensors), grouped(elements), self.model.share(elements).percent()]
        };
        kinds.into_iter().map(row).collect()
    }
}
