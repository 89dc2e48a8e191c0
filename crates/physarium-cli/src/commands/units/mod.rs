//! `physarium plan`, `unit` and `finish`: one run as units of work for several processes.

pub mod finish;
mod job;
mod kubernetes;
pub mod plan;
mod slurm;
pub mod unit;

use std::path::Path;

use physarium::{MemoryLimit, WorkPlan, Workplace};

/// Opens a plan for work with `threads` threads, or as many as it says.
fn workplace(
    path: &Path,
    threads: Option<usize>,
    memory: MemoryLimit,
) -> Result<Workplace, physarium::Error> {
    let plan = WorkPlan::read(path)?;
    let threads = threads.unwrap_or(plan.cpus);
    Workplace::open(plan, path, threads, memory)
}
