/*!
physarium prunes language models with an algorithm inspired by the slime mould *Physarum polycephalum*, and verifies
the result.

This crate is the library. The program `physarium` (package `physarium-cli`) adds a command line to it.

* [`RecipeOptions`] makes a [`Recipe`](checkpoint::Recipe): the method, how much it prunes, and which tensors.
* [`Surgery`] plans a run, then prunes a checkpoint in Hugging Face layout into a new directory.
* [`audit`] counts the result again from its bytes and verifies it, without the code of the pruner.
* [`evaluate`] measures perplexity; [`compare`] does so for several recipes. [`Choices`] are multiple-choice items.
* [`pack`] stores a pruned checkpoint without its zeros; [`generate()`] generates text from either form.
* [`checkpoint`], [`flow`] and [`model`] are the layers below: files, mathematics, decoder.

An activation-aware recipe also needs a [`CalibrationText`], given to [`Surgery::calibrate`].

The library does not read the command line, write to a terminal, or handle signals. A
[`Progress`] receives the events of a run, and a [`Cancel`] stops it.

# Example

Plan, prune, audit and verify:

```
use physarium::audit::{AuditRequest, Evidence, audit, verify};
use physarium::{Cancel, Options, Output, RecipeOptions, Silent, Surgery};

let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model").as_ref();
let work = tempfile::tempdir()?;
let out = &work.path().join("pruned");

// Half of the weights of each tile, by magnitude.
let options = RecipeOptions { sparsity: Some("0.5".parse()?), ..RecipeOptions::default() };
let surgery = Surgery::plan(model, options.recipe(model, None)?, Options::default())?;
println!("{} of {} elements are targets", surgery.plan.target_elements(), surgery.plan.model_elements());

let summary = surgery.prune(Output::new(out), &Cancel::default(), &mut Silent)?;
assert_eq!(summary.totals.processed, surgery.plan.target_elements());

// The audit reads both checkpoints and counts every weight again.
let request = AuditRequest {
    dir: out,
    against: Some(model),
    evidence: Evidence::Bytes,
    selection: None,
    threads: 2,
};
let report = audit(&request, &mut |_| Ok(()))?;
assert!(report.denominator_correct);
let pruned = report.pruned.expect("counted against the original");
println!("{} = {}", pruned.elements, pruned.of_target.sentence());

// Only the pruned weights differ from the original.
let verification = verify(model, out, &mut |_| Ok(()))?;
assert!(verification.findings.is_empty());
# Ok::<(), Box<dyn std::error::Error>>(())
```

The programs in `examples/` prune one tensor in memory and audit a directory.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod bounded;
mod calibration;
mod cancel;
mod card;
mod choices;
mod comparison;
mod engine;
mod error;
mod estimate;
mod eval;
mod free_memory;
mod generate;
mod matrix;
mod memory_limit;
mod peak;
mod progress;
mod random;
mod recipe;
mod records;
mod sealed;
mod surgery;
mod tokenizer;
mod units;

pub use calibration::CalibrationText;
pub use cancel::Cancel;
pub use card::method_in_words;
pub use choices::{
    Accuracy, Choices, ChoicesAgainst, ChoicesProtocol, ChoicesRequest, ChoicesResult,
    ComparedAccuracy, ItemScore, Taken,
};
pub use comparison::{
    Begun, ComparedRun, Comparison, ComparisonRecord, ComparisonRequest, Contender, Ended,
    FailedRun, Outputs, PrunedRun, Row, compare,
};
pub use engine::{MemoryPlan, check_recipe};
pub use error::Error;
pub use eval::{
    Against, EvalRequest, Evaluation, PartsScored, PartsShare, Protocol, TextUsed, TokenComparison,
    TokenScore, evaluate, evaluate_in_parts, score_parts,
};
pub use generate::{GenerateRequest, Generated, Prompt, Sampling, Stopped, generate};
pub use matrix::{MatrixRequest, prune_matrix};
pub use memory_limit::{MemoryLimit, Streams};
pub use peak::peak_resident_bytes;
#[doc(inline)]
pub use physarium_audit as audit;
#[doc(inline)]
pub use physarium_checkpoint as checkpoint;
#[doc(inline)]
pub use physarium_flow as flow;
#[doc(inline)]
pub use physarium_model as model;
#[doc(inline)]
pub use physarium_pack as pack;
pub use progress::{Event, Kept, Progress, Silent};
pub use recipe::effort::Effort;
pub use recipe::error::{MethodName, NoEffect, RecipeError, RecipeOption, ScopeName};
pub use recipe::options::{Allocation, CalibrationOptions, RecipeOptions};
pub use recipe::table::Case;
pub use surgery::{CardPlace, Options, Output, Strictness, Summary, Surgery};
pub use tokenizer::BosRule;
pub use units::{Cost, Ended as UnitEnded, Share, Unit, Work, WorkPlan, Worker, Workplace};
