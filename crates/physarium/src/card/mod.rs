/*!
The model card of a pruned model: metadata in YAML, and a section in Markdown.

In: what a run records, and the metadata of the base model's README.md. Out: `physarium.card.md`, beside the model's own
README.md, which also begins with it if the user wants that. The text depends on the records and the model's files
only, so that the same run writes the same bytes everywhere.
*/

mod front_matter;
mod metadata;

use std::collections::BTreeMap;

use physarium_audit::{Share, grouped};
use physarium_checkpoint::journal::{ShardRecord, TensorRecord, Totals};
use physarium_checkpoint::{
    Amount, Criterion, FlowSteps, HubSource, Recipe, Scope, markdown, printable,
};
use serde_json::Value;

pub(crate) use self::front_matter::FrontMatter;
use self::metadata::metadata;
use crate::recipe::effort::Effort;
use crate::records::mean_output_error;

/// What a card is made of.
pub(crate) struct Card<'a> {
    /// `config.json` of the model; null if there is none.
    pub config: &'a Value,
    /// Program and version.
    pub tool: &'a str,
    pub recipe: &'a Recipe,
    pub totals: Totals,
    pub shards: &'a [ShardRecord],
    pub tensors: &'a [TensorRecord],
    /// The base model on the hub.
    pub source: Option<&'a HubSource>,
    /// Metadata of the base model's README.md.
    pub base: &'a FrontMatter,
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn text(&self) -> String {
        let mut text = metadata(self.source, self.base);
        text += &format!("\n## Pruned with {}\n\n| | |\n|---|---|\n", self.tool);
        for (name, value) in self.rows() {
            text += &format!("| {name} | {value} |\n");
        }
        text += "\nAll shares are of element counts. Target: the tensors that were pruned; model: all tensors.\n";
        text += &self.projections();
        text +=
            "\n| file | SHA-256 of the base model's | SHA-256 of this model's |\n|---|---|---|\n";
        for shard in self.shards {
            let name = in_cell(&shard.name);
            text += &format!("| {name} | {} | {} |\n", shard.input_sha256, shard.output_sha256);
        }
        text + &self.commands() + &self.remarks()
    }

    /// What was pruned, by projection.
    fn projections(&self) -> String {
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for done in self.tensors.iter().filter_map(TensorRecord::processed) {
            let sum = sums.entry(&done.projection).or_default();
            sum.tensors += 1;
            sum.elements += done.processed;
            sum.pruned += done.pruned;
            sum.zero_now += done.pruned + done.already_zero;
        }
        let mut text = "\n| projection | tensors | elements | pruned | zero now |\n|---|---:|---:|---:|---:|\n".to_owned();
        for (name, sum) in sums {
            let share = |count| Share::new(count, sum.elements, "projection").sentence();
            text += &format!(
                "| {} | {} | {} | {} | {} |\n",
                in_cell(name),
                grouped(sum.tensors),
                grouped(sum.elements),
                share(sum.pruned),
                share(sum.zero_now),
            );
        }
        text
    }

    /// How to check what the card says.
    fn commands(&self) -> String {
        let (fetch, base, with) = match self.source {
            Some(source) => (source.download() + "\n", source.short(), "With this model in DIR"),
            None => {
                let with = "With the base model in BASE and this model in DIR";
                (String::new(), "BASE".to_owned(), with)
            }
        };
        format!(
            "\n{with}, this verifies every byte, and counts again:\n\n```\n{fetch}physarium verify DIR --against {base}\n\
             physarium audit DIR --against {base}\n```\n\nThe run did not measure the quality of this model; this does, on a \
             text of yours:\n\n```\nphysarium eval DIR --against {base} --text TEXT\n```\n"
        )
    }

    /// What is missing in the metadata.
    fn remarks(&self) -> String {
        let mut text = String::new();
        if self.source.is_none() {
            text += "\nThe base model was read from a directory: its id on the hub goes into `base_model`, in the \
                     metadata at the head of this file.\n";
        }
        if !self.base.others.is_empty() {
            let names: Vec<String> = self.base.others.iter().map(|name| in_cell(name)).collect();
            let names = names.join(", ");
            text += &format!("\nMetadata of the base model that is not repeated here: {names}.\n");
        }
        for note in &self.base.notes {
            text += &format!("\nNote: {note}.\n");
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let totals = self.totals;
        let of = |count, whole, name| Share::new(count, whole, name).sentence();
        let base = self.config["_name_or_path"].as_str().filter(|name| !name.is_empty());
        let base = match (self.source, base) {
            (Some(HubSource { hub, commit, .. }), _) => {
                format!("[{hub}](https://huggingface.co/{hub}/tree/{commit}), commit {commit}")
            }
            (None, Some(name)) => format!("{} (`_name_or_path` in config.json)", in_cell(name)),
            (None, None) => "the one with the digests below".to_owned(),
        };
        let zero_now = totals.pruned + totals.already_zero;
        let mut rows = vec![
            ("base model", base),
            ("method", method_in_words(self.recipe)),
            (
                "target",
                format!(
                    "{} of {} tensors, {} elements = {}",
                    grouped(totals.processed_tensors),
                    grouped(totals.tensors),
                    grouped(totals.processed),
                    of(totals.processed, totals.elements, "model"),
                ),
            ),
            (
                "pruned",
                format!(
                    "{} weights = {} = {}",
                    grouped(totals.pruned),
                    of(totals.pruned, totals.processed, "target"),
                    of(totals.pruned, totals.elements, "model"),
                ),
            ),
            (
                "zero now",
                format!(
                    "{} weights = {}, of which {} were zero before",
                    grouped(zero_now),
                    of(zero_now, totals.processed, "target"),
                    grouped(totals.already_zero),
                ),
            ),
        ];
        let others = match totals.refitted {
            0 => "as in the base model, bit by bit".to_owned(),
            updated => format!(
                "{} updated to compensate = {}; all others as in the base model, bit by bit",
                grouped(updated),
                of(updated, totals.processed, "target"),
            ),
        };
        rows.push(("other weights", others));
        rows.extend(mean_output_error(self.tensors).map(|error| {
            let what = "squared, relative to the outputs, on calibration tokens; mean over the target's tensors";
            ("error of outputs", format!("{error:.5} ({what})"))
        }));
        rows
    }
}

/// Counts of a projection's tensors.
#[derive(Default)]
struct Sum {
    tensors: u64,
    elements: u64,
    pruned: u64,
    zero_now: u64,
}

/// A name from a file, safe in a cell of a table.
fn in_cell(name: &str) -> String {
    markdown(&printable(name))
}

/// The effort of the activation flow, after its name.
fn effort_in_words(flow: Option<&FlowSteps>) -> String {
    // Of its earlier dynamics there was one kind.
    let Some(flow) = flow else { return String::new() };
    match Effort::of(flow) {
        Some(effort) => format!(" with {} effort", effort.text()),
        None => format!(" with {} steps", flow.steps),
    }
}

/// The method of a recipe in words: `sparsegpt, sparsity 0.5 of each tensor, calibrated on 8,192 tokens in windows
/// of 512`.
pub fn method_in_words(recipe: &Recipe) -> String {
    let mut text = recipe.method.criterion().name().to_owned();
    match recipe.method.criterion() {
        Criterion::MagnitudeFlow { block_size, .. } => {
            text += &format!(" in tiles of {block_size} x {block_size}");
        }
        Criterion::ActivationFlow { flow, .. } => text += &effort_in_words(flow.as_ref()),
        _ => {}
    }
    text += &match recipe.method.amount() {
        Amount::Emergent => ", the sparsity emerges from the flow".to_owned(),
        Amount::Price(price) => {
            format!(", price {}: the sparsity emerges from the model", f64::from(price))
        }
        Amount::Pattern(pattern) => format!(", pattern {pattern}"),
        Amount::Sparsity { sparsity, scope } => {
            let of = match scope {
                Scope::Tile { block_size } => format!("each tile of {block_size} x {block_size}"),
                Scope::Tensor => "each tensor".to_owned(),
                Scope::Model => "all targets together".to_owned(),
            };
            format!(", sparsity {} of {of}", f64::from(sparsity))
        }
    };
    if let Some(calibration) = recipe.needs().calibration {
        text += &format!(
            ", calibrated on {} tokens in windows of {}",
            grouped(calibration.tokens_used()),
            grouped(calibration.window)
        );
    }
    text
}
