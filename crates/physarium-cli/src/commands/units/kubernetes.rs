//! A plan as jobs of Kubernetes.

use super::job::Job;

/// The claim and the image that a user replaces.
const CLAIM: &str = "models";
const IMAGE: &str = "physarium:latest";

/// An Indexed Job of workers, and a Job that publishes the output; YAML.
pub(super) fn manifest(job: &Job<'_>) -> String {
    let workers = job.workers;
    let index = format!("$(JOB_COMPLETION_INDEX)/{workers}");
    let worker = pod(job, &["unit", "$(PLAN)", "--worker", &index, "--quiet"]);
    let finish = pod(job, &["finish", "$(PLAN)", "--wait", "--quiet"]);
    let mount = job.mount();
    format!(
        "# Runs the units of a plan with {workers} workers, then publishes the output.\n\
         # Replace the image {IMAGE} and the claim {CLAIM}: a volume that all nodes can write (ReadWriteMany), mounted\n\
         # at {mount}, so that the paths in the plan are the same. A worker whose node fails is started again, and\n\
         # resumes what is not done.\n\
         apiVersion: batch/v1\n\
         kind: Job\n\
         metadata:\n  name: physarium-units\n\
         spec:\n  completionMode: Indexed\n  completions: {workers}\n  parallelism: {workers}\n  \
         backoffLimitPerIndex: 10\n  maxFailedIndexes: 0\n  template:\n{worker}\
         ---\n\
         apiVersion: batch/v1\n\
         kind: Job\n\
         metadata:\n  name: physarium-finish\n\
         spec:\n  backoffLimit: 10\n  template:\n{finish}",
    )
}

/// The template of a pod that runs the program.
fn pod(job: &Job<'_>, arguments: &[&str]) -> String {
    let list: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    let (plan, mount) = (quoted(&job.path.to_string_lossy()), quoted(&job.mount()));
    let (cpus, memory) = (job.plan.cpus, job.mebibytes());
    format!(
        "    spec:\n      restartPolicy: Never\n      containers:\n      - name: physarium\n        \
         image: {IMAGE}\n        command: [\"physarium\"]\n        args: [{}]\n        env:\n        \
         - name: PLAN\n          value: {plan}\n        resources:\n          \
         requests: {{cpu: \"{cpus}\", memory: \"{memory}Mi\"}}\n          \
         limits: {{memory: \"{memory}Mi\"}}\n        volumeMounts:\n        \
         - name: models\n          mountPath: {mount}\n      volumes:\n      - name: models\n        \
         persistentVolumeClaim:\n          claimName: {CLAIM}\n",
        list.join(", "),
    )
}

/// A text as a string of YAML, which JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
