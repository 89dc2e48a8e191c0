"""Runs the containers of Kubernetes jobs as processes: one for each index, of which one is killed and started again.

usage: units_kubernetes.py JOBS.yaml
"""

import subprocess
import sys
import time

import yaml


def command(job, index):
    """The command of the job's container for an index, with its environment put in."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    values["JOB_COMPLETION_INDEX"] = str(index)
    words = container["command"] + container["args"]
    for name, value in values.items():
        words = [word.replace(f"$({name})", value) for word in words]
    assert "$(" not in "".join(words), words
    return words


def main():
    units, finish = yaml.safe_load_all(open(sys.argv[1]))
    assert units["spec"]["completionMode"] == "Indexed"
    assert units["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    # The job that publishes is created at the same time as the workers.
    waiting = subprocess.Popen(command(finish, None))
    count = units["spec"]["completions"]
    assert units["spec"]["parallelism"] == count
    pods = [subprocess.Popen(command(units, index)) for index in range(count)]
    time.sleep(0.5)
    pods[1].kill()
    pods[1].wait()
    pods[1] = subprocess.Popen(command(units, 1))
    for pod in [*pods, waiting]:
        assert pod.wait(timeout=300) == 0, pod.args


main()
