/*!
physarium prunes language models with an algorithm inspired by a slime mould, and proves what it did.

This crate is the facade: [`Surgery`] plans and prunes a checkpoint; [`audit`] recounts and verifies
the result and never sees the pruner; [`checkpoint`] and [`flow`] are the layers below. The program
`physarium` is a thin shell around them.

```no_run
use physarium::checkpoint::{Method, NonFinite, Overwrite, Recipe, Resume};
use physarium::{Cancel, Options, Silent, Surgery};

let recipe = Recipe {
    method: physarium::default_method(),
    target: vec![],
    skip: vec![],
    non_finite: NonFinite::Refuse,
};
let surgery = Surgery::plan("models/smollm2".as_ref(), recipe, Options::default())?;
let out = "models/smollm2-pruned".as_ref();
let cancel = Cancel::default();
let summary = surgery.prune(out, Overwrite::Refuse, Resume::Continue, &cancel, &mut Silent)?;
println!("{} of {} target elements pruned", summary.totals.pruned, summary.totals.processed);
# Ok::<(), physarium::Error>(())
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
mod surgery;
mod tokenizer;

pub use calibration::{CalibrationText, default_window};
pub use cancel::Cancel;
pub use comparison::{ComparedRun, ComparisonRequest, Contender, Outputs, compare};
pub use engine::MemoryPlan;
pub use error::Error;
pub use eval::{Against, BosRule, EvalRequest, Evaluation, Protocol, TokenScore, evaluate};
pub use generate::{GenerateRequest, Generated, Prompt, Sampling, Stopped, generate};
pub use physarium_audit as audit;
pub use physarium_checkpoint as checkpoint;
pub use physarium_flow as flow;
pub use physarium_model as model;
pub use physarium_pack as pack;
pub use progress::{Event, Progress, Silent};
pub use surgery::{Options, Strictness, Summary, Surgery, default_method};
