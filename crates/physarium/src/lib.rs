/*!
physarium prunes language models with an algorithm inspired by the slime mould Physarum polycephalum, and
verifies the result.

This crate is the library; the program `physarium` (package `physarium-cli`) is a thin shell around it.

* [`RecipeOptions`] turns what a user asks for into a [`Recipe`](checkpoint::Recipe).
* [`Surgery`] plans a run, then prunes a checkpoint in Hugging Face layout into a new directory.
* [`audit`] recounts and verifies the result from its bytes. It never uses the pruner's code.
* [`evaluate`] measures perplexity, [`compare`] several methods side by side.
* [`pack`] stores a pruned checkpoint without its zeros; [`generate`] runs either.
* [`checkpoint`], [`flow`] and [`model`] are the layers below: files, maths, decoder.

Nothing here reads the command line, writes to a terminal or handles signals: progress goes to a
[`Progress`], and a [`Cancel`] stops a run between two pieces of work.

# Example

Plan, prune, audit and verify:

```
use physarium::audit::{AuditRequest, Evidence, audit, verify};
use physarium::{Cancel, Options, Output, RecipeOptions, Silent, Surgery};

let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model").as_ref();
let work = tempfile::tempdir()?;
let out = &work.path().join("pruned");

let recipe = RecipeOptions { sparsity: Some("0.5".parse()?), ..RecipeOptions::default() };
let surgery = Surgery::plan(model, recipe.recipe(model, None)?, Options::default())?;
println!("{} of {} elements are targets", surgery.plan.target_elements(), surgery.plan.model_elements());

let summary = surgery.prune(Output::new(out), &Cancel::default(), &mut Silent)?;
assert_eq!(summary.totals.processed, surgery.plan.target_elements());

let request = AuditRequest {
    dir: out,
    against: Some(model),
    evidence: Evidence::Bytes,
    selection: None,
    threads: 2,
};
let report = audit(&request, &mut |_| Ok(()))?;
assert!(report.denominator_correct);
let pruned = report.pruned.expect("known beside the original");
println!("{} = {}", pruned.elements, pruned.of_target.sentence());

let verification = verify(model, out, &mut |_| Ok(()))?;
assert!(verification.findings.is_empty());
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod calibration;
mod cancel;
mod comparison;
mod engine;
mod error;
mod eval;
mod generate;
mod peak;
mod progress;
mod random;
mod recipe;
mod records;
mod surgery;
mod tokenizer;

pub use calibration::CalibrationText;
pub use cancel::Cancel;
pub use comparison::{ComparedRun, ComparisonRequest, Contender, Outputs, compare};
pub use engine::MemoryPlan;
pub use error::Error;
pub use eval::{
    Against, EvalRequest, Evaluation, Protocol, TextUsed, TokenComparison, TokenScore, evaluate,
};
pub use generate::{GenerateRequest, Generated, Prompt, Sampling, Stopped, generate};
pub use physarium_audit as audit;
pub use physarium_checkpoint as checkpoint;
pub use physarium_flow as flow;
pub use physarium_model as model;
pub use physarium_pack as pack;
pub use progress::{Event, Progress, Silent};
pub use recipe::error::{MethodName, NoEffect, RecipeError, RecipeOption};
pub use recipe::options::{Allocation, CalibrationOptions, RecipeOptions, ScopeName};
pub use surgery::{Options, Output, Strictness, Summary, Surgery};
pub use tokenizer::BosRule;
