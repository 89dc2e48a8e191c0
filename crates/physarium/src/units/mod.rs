/*!
A run as units of work, for several processes on several hosts that share a file system.

In: a planned [`Surgery`](crate::Surgery). Out: a [`WorkPlan`], a list of units with what each needs; a [`Workplace`], which
runs one unit or all that it finds ready; and in the end the output, byte for byte that of
[`Surgery::prune`](crate::Surgery::prune), which does the same work in one process.

* `plan` is the list as a file, `planning` makes it of a `listing` of units and what they `cost`.
* `workplace` opens a plan, and checks that everything is as it was; `run` does a unit, `worker` chooses which, as its `share`.
* `weights` are the units that read weights only, `calibrated` those of activation-aware methods.
* `finish` publishes the output.

Which unit runs where is for Ray, Slurm, Kubernetes or a shell loop to say.
*/

mod calibrated;
mod cost;
mod finish;
mod listing;
mod plan;
mod planning;
mod run;
mod share;
mod weights;
mod worker;
mod workplace;

pub use plan::{Cost, Unit, Work, WorkPlan};
pub use run::Ended;
pub use share::Share;
pub use worker::Worker;
pub use workplace::Workplace;
