//! `physarium prune`: plans, prunes and reports what it did.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use physarium::audit::{Share, grouped};
use physarium::checkpoint::{Disk, Found, Occupant, Resume};
use physarium::model::PrunedInputs;
use physarium::{
    CardPlace, Output, Streams, Summary, Surgery, method_in_words, peak_resident_bytes,
};
use serde_json::json;

use crate::arguments::{Display, Format, MemoryArgument, OUTPUT, ThreadsArgument, overwrite};
use crate::output::{self, Outcome, counted, size};
use crate::surgery::SurgeryArguments;
use crate::{signals, terminal};

/// Prune a checkpoint into a new directory
///
/// Targets are the q/k/v/o and gate/up/down weights of the decoder, or --target. Methods with "flow" in their
/// name treat each weight as a tube of a slime mould: conductances adapt to the flow, and weights of dead
/// tubes are set to +0.0. magnitude-flow (the default) and magnitude need no data; the other methods are
/// activation-aware and use a --calibration text.
///
/// How much is pruned is set by --sparsity, --pattern or, for activation-aware methods, --price. The two flow
/// methods also run without: the sparsity is not fixed in advance, it emerges from the flow. With --sparsity or
/// --pattern, magnitude-flow runs no flow and prunes the smallest magnitudes.
///
/// The output is a Hugging Face checkpoint that differs from the input only in pruned weights and, with
/// sparsegpt and activation-flow, in weights updated to compensate. Beside the weights it holds
/// physarium.journal.jsonl, physarium.manifest.json and the model card physarium.card.md. The output directory
/// appears only once complete; rerun the same command to resume an interrupted run.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    surgery: SurgeryArguments,
    /// Print the plan, output size, disk space, memory and time; write nothing
    #[arg(long, help_heading = OUTPUT)]
    dry_run: bool,
    /// Replace an earlier physarium output once the new one is complete
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Discard an interrupted run instead of resuming it
    #[arg(long, help_heading = OUTPUT)]
    restart: bool,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    memory: MemoryArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium prune models/llama --out models/pruned
  physarium prune models/llama --out models/half --method magnitude --sparsity 0.5
  physarium prune models/llama --out models/half --method activation-flow --sparsity 0.5 \\
      --calibration text.txt
  physarium prune models/llama --out models/24 --pattern 2:4 --skip '*.k_proj.weight'
  physarium prune models/llama --out models/again --recipe models/pruned/physarium.manifest.json
  physarium prune models/llama --out models/pruned --dry-run";

/// Prunes.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let within = (arguments.threads.count(), arguments.memory.limit());
    let (surgery, shown) = arguments.surgery.plan(within, arguments.display.quiet)?;
    let cancel = signals::cancel_on_signal()?;
    let resume = if arguments.restart { Resume::Restart } else { Resume::Continue };
    let overwrite = overwrite(arguments.force);
    let output = Output { dir: &arguments.surgery.out, overwrite, resume };
    if arguments.dry_run {
        let found = surgery.look_at_output(output, &cancel)?;
        let time = surgery.estimate(&cancel)?;
        match arguments.display.format() {
            Format::Json => {
                let mut json = dry_run_json(&surgery, time);
                json["free_bytes"] = json!(free_bytes(output.dir));
                json["rewrites_readme"] = json!(surgery.card == CardPlace::InReadme);
                json["replaces"] = json!(found.output == Occupant::Finished);
                json["unfinished"] = json!(found.unfinished.as_ref().map(|_| fate(resume)));
                output::json(&output::with_notes(json, &surgery.notes))?;
            }
            Format::Text => {
                let text = dry_run_text(&surgery, time, &arguments.surgery.out);
                let card = card_text(&surgery);
                let happens = would_happen(&found, &output);
                output::text(&(text + card + &happens + "nothing was written\n"))?;
            }
        }
        return Ok(Outcome::True);
    }
    let mut progress = terminal::progress(arguments.display.style());
    let summary = surgery.prune(output, &cancel, &mut *progress)?;
    drop(progress);
    match arguments.display.format() {
        Format::Json => {
            let mut json = summary_json(&surgery, &summary, &arguments.surgery.out);
            json["seconds"] = json!(began.elapsed().as_secs_f64());
            json["peak_rss_bytes"] = json!(peak_resident_bytes());
            output::json(&output::with_notes(json, &surgery.notes))?;
        }
        Format::Text => {
            let text = counts(&surgery, &summary) + &cost(began.elapsed());
            let next = summary_text(&summary, &shown, &arguments.surgery.out);
            output::text(&(text + &next))?;
        }
    }
    Ok(Outcome::True)
}

fn dry_run_text(surgery: &Surgery, time: Option<Duration>, out: &Path) -> String {
    let (model, target) = (surgery.plan.model_elements(), surgery.plan.target_elements());
    let (workers, resident_bytes) = (surgery.memory.workers, surgery.memory.resident_bytes);
    let method = method_in_words(&surgery.recipe);
    let time = match time {
        Some(time) => format!("about {}, by a measured second of the work", output::duration(time)),
        None => "not estimated for this method".to_owned(),
    };
    let allowed = surgery.memory_limit().map(|bytes| format!(", of {} allowed", size(bytes)));
    let allowed = allowed.unwrap_or_default();
    let streams = match surgery.memory.streams {
        Some(Streams::Memory(bytes)) => format!("residual streams: {} in memory\n", size(bytes)),
        Some(Streams::File(bytes)) => format!(
            "residual streams: {} in a scratch file beside the output, as memory has no room for them\n",
            size(bytes)
        ),
        None => String::new(),
    };
    let inputs = match (surgery.memory.streams, surgery.memory.pruned_inputs) {
        (Some(_), PrunedInputs::ComputedTwice) => {
            "inputs of o and down: computed twice, as memory has no room for them\n"
        }
        (Some(_), PrunedInputs::Kept) | (None, _) => "",
    };
    let free = free_bytes(out).map(|bytes| format!(", {} there", size(bytes)));
    let disk = size(bytes_needed(surgery)) + " free needed" + &free.unwrap_or_default();
    let bound = if surgery.recipe.needs().calibration.is_some() { "about" } else { "at most" };
    format!(
        "would prune {} of {} tensors: {} of {} elements ({})\n\
         method: {method}\n\
         would write {} to {}\n\
         disk: {disk}\n\
         memory: {bound} {} resident with {workers} worker threads{allowed}\n\
         {streams}{inputs}\
         time: {time}\n",
        surgery.plan.targets().count(),
        surgery.plan.tensors.len(),
        grouped(target),
        grouped(model),
        Share::new(target, model, "model").sentence(),
        size(surgery.output_bytes()),
        out.display(),
        size(resident_bytes),
    )
}

/// Bytes that must be free for a new run: for its output, and for what an activation-aware method keeps beside it meanwhile.
fn bytes_needed(surgery: &Surgery) -> u64 {
    Disk::needed(surgery.output_bytes().saturating_add(surgery.solved_bytes()))
}

/// Bytes that are free where an output would be; `None` if the file system does not say.
fn free_bytes(out: &Path) -> Option<u64> {
    let out = std::path::absolute(out).ok()?;
    let dir = out.ancestors().skip(1).find(|above| above.is_dir())?;
    Some(Disk::of(dir).ok()?.free)
}

/// What a run would do with README.md.
fn card_text(surgery: &Surgery) -> &'static str {
    match surgery.card {
        CardPlace::Beside => "",
        CardPlace::InReadme => "would put the model card at the head of README.md\n",
    }
}

/// What a run would do with what is at its output's place.
fn would_happen(found: &Found, output: &Output<'_>) -> String {
    let mut text = String::new();
    if found.output == Occupant::Finished {
        text += &format!("would replace the finished output {}\n", output.dir.display());
    }
    if let Some(unfinished) = &found.unfinished {
        let verb = match output.resume {
            Resume::Continue => "resume",
            Resume::Restart => "discard",
        };
        text += &format!(
            "would {verb} the unfinished run {}; the figures above are for a new run\n",
            unfinished.display()
        );
    }
    text
}

/// What happens to an unfinished run, as JSON says it.
fn fate(resume: Resume) -> &'static str {
    match resume {
        Resume::Continue => "resumed",
        Resume::Restart => "discarded",
    }
}

fn dry_run_json(surgery: &Surgery, time: Option<Duration>) -> serde_json::Value {
    let (model, target) = (surgery.plan.model_elements(), surgery.plan.target_elements());
    json!({
        "schema": "physarium.plan/1",
        "recipe": surgery.recipe,
        "model": {"tensors": surgery.plan.tensors.len(), "elements": model},
        "target": {
            "tensors": surgery.plan.targets().count(),
            "elements": target,
            "of_model": Share::new(target, model, "model"),
        },
        "output_bytes": surgery.output_bytes(),
        "free_bytes_needed": bytes_needed(surgery),
        "resident_bytes": surgery.memory.resident_bytes,
        "memory_limit_bytes": surgery.memory_limit(),
        "streams": surgery.memory.streams.map(|streams| match streams {
            Streams::Memory(bytes) => json!({"bytes": bytes, "kept_in": "memory"}),
            Streams::File(bytes) => json!({"bytes": bytes, "kept_in": "file"}),
        }),
        "pruned_inputs": surgery.memory.streams.map(|_| match surgery.memory.pruned_inputs {
            PrunedInputs::Kept => "kept",
            PrunedInputs::ComputedTwice => "computed twice",
        }),
        "workers": surgery.memory.workers,
        "seconds": time.map(|time| time.as_secs_f64()),
    })
}

/// The counts of a run.
pub fn counts(surgery: &Surgery, summary: &Summary) -> String {
    let (totals, target) = (summary.totals, surgery.plan.target_elements());
    let mut text = format!(
        "pruned {} weights: {}, {}\n",
        grouped(totals.pruned),
        Share::new(totals.pruned, target, "target").sentence(),
        Share::new(totals.pruned, totals.elements, "model").sentence(),
    );
    text += &format!(
        "processed {} of {} target elements in {} of {} tensors; {} were zero before and are still\n",
        grouped(totals.processed),
        grouped(target),
        totals.processed_tensors,
        totals.tensors,
        grouped(totals.already_zero),
    );
    if totals.refitted > 0 {
        text += &format!(
            "updated {} weights to compensate: {}\n",
            grouped(totals.refitted),
            Share::new(totals.refitted, target, "target").sentence(),
        );
    }
    if totals.dead_inputs > 0 {
        text += &format!(
            "{} of projections always zero on the calibration text\n",
            counted(totals.dead_inputs, "input")
        );
    }
    if totals.non_finite > 0 {
        let weights = counted(totals.non_finite, "NaN or infinite weight");
        text += &format!("{weights} kept unchanged\n");
    }
    text
}

/// Where the output is, and what to do with it.
pub fn summary_text(summary: &Summary, model: &str, out: &Path) -> String {
    let (dir, model) = (output::quoted_path(&out.to_string_lossy()), output::quoted_path(model));
    format!(
        "wrote {}: {} in {}\n\
         next: physarium audit {dir} --against {model}\n      \
         physarium verify {dir} --against {model}\n",
        out.display(),
        size(summary.output_bytes),
        counted(summary.shards as u64, "shard"),
    )
}

/// What a run took.
pub fn cost(elapsed: Duration) -> String {
    let memory = peak_resident_bytes().map(|bytes| format!(", peak memory {}", size(bytes)));
    format!("took {}{}\n", output::duration(elapsed), memory.unwrap_or_default())
}

pub fn summary_json(surgery: &Surgery, summary: &Summary, out: &Path) -> serde_json::Value {
    let (totals, target) = (summary.totals, surgery.plan.target_elements());
    json!({
        "schema": "physarium.prune/1",
        "out": out.to_string_lossy(),
        "recipe": surgery.recipe,
        "model": {"tensors": totals.tensors, "elements": totals.elements},
        "target": {
            "tensors": surgery.plan.targets().count(),
            "elements": target,
            "of_model": Share::new(target, totals.elements, "model"),
        },
        "processed": {"tensors": totals.processed_tensors, "elements": totals.processed},
        "pruned": {
            "elements": totals.pruned,
            "of_target": Share::new(totals.pruned, target, "target"),
            "of_model": Share::new(totals.pruned, totals.elements, "model"),
        },
        "already_zero": totals.already_zero,
        "refitted": totals.refitted,
        "dead_inputs": totals.dead_inputs,
        "output_error": summary.output_error,
        "non_finite": totals.non_finite,
        "shards": {"written": summary.shards - summary.resumed_shards, "resumed": summary.resumed_shards},
        "output_bytes": summary.output_bytes,
    })
}
