//! A plan as jobs of Slurm.

use super::job::Job;

/// A script that submits an array of workers, and a job that publishes the output once all of them have ended.
pub(super) fn script(job: &Job<'_>) -> String {
    let (plan, workers) = (quoted(&job.path.to_string_lossy()), job.workers);
    let last = workers.get() - 1;
    let (cpus, memory) = (job.plan.cpus, job.mebibytes());
    let log = quoted(&format!("{}.%A_%a.log", job.path.display()));
    let finish_log = quoted(&format!("{}.%j.log", job.path.display()));
    format!(
        r#"#!/bin/bash
# Submits {workers} workers that run the units of a plan, and a job that publishes the output after them.
#   bash THIS_FILE             submit
#   PHYSARIUM=/path/to/physarium bash THIS_FILE      with a program that is not on the PATH of the nodes
# A worker that is preempted or whose node fails is queued again and resumes what is not done. With the estimates of the
# plan and as many nodes as workers, the units take about {hours}.
set -euo pipefail
plan={plan}
program="${{PHYSARIUM:-physarium}}"
workers=$(sbatch --parsable --job-name=physarium --array=0-{last} --requeue --open-mode=append \
    --cpus-per-task={cpus} --mem={memory}M --output={log} \
    --wrap "exec $(printf %q "$program") unit $(printf %q "$plan") --worker \$SLURM_ARRAY_TASK_ID/{workers} --quiet")
finish=$(sbatch --parsable --job-name=physarium-finish --dependency="afterok:${{workers%%;*}}" --requeue --open-mode=append \
    --cpus-per-task={cpus} --mem={memory}M --output={finish_log} \
    --wrap "exec $(printf %q "$program") finish $(printf %q "$plan") --quiet")
echo "workers $workers"
echo "finish $finish"
"#,
        hours = crate::output::duration(std::time::Duration::from_secs_f64(job.seconds())),
    )
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
