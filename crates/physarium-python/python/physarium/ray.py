"""Runs the units of a plan on a Ray cluster (docs/UNITS.md).

Needs the package ray (``pip install physarium[ray]``) here, and physarium on every node. The paths in the plan are the same on
all nodes, which share their file system: only the path of the plan and ids of units go through Ray, never weights.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from typing import Any

from . import units
from ._plan import Plan
from .errors import Error, OutputError, ResourceError
from .options import Path
from .progress import Event, Listener
from .results import Pruned

try:
    import ray
    from ray import exceptions
except ImportError as e:
    raise ImportError("physarium.ray needs the package ray: pip install physarium[ray]") from e

_LOST = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError)


def prune(
    plan: Path,
    *,
    address: str | None = "auto",
    retries: int = 10,
    force: bool = False,
    restart: bool = False,
    progress: Listener | None = None,
) -> Pruned:
    """Runs the units of a plan as tasks, then publishes the output in one more task.

    Each task requests the plan's processors, and that of a unit also its memory. A task whose worker or node is lost is tried
    again, at most ``retries`` times; then :class:`physarium.ResourceError` is raised. An error of a unit, or an exception here
    such as ``KeyboardInterrupt``, cancels all tasks. The same call runs what is not done.

    ``address`` is that of the cluster, as ``ray.init`` takes it; it is not used in a process that is connected already.
    ``force`` and ``restart`` are those of :func:`physarium.finish`. ``progress`` is called with the task ``units``, its
    ``steps``, and the ``name`` of the unit that is done.
    """
    read = Plan.read(plan)
    if not (force or read.would_replace()):
        _refuse_output(read)
    with _connection(address):
        _refuse_small_cluster(read)
        tasks = _Tasks(read, retries)
        try:
            _run_units(read, tasks, progress or (lambda _: None))
            tasks.submit("finish", _finish, (force, restart), memory_bytes=0)
            _, result = tasks.wait()
        except BaseException:
            tasks.cancel()
            raise
    return Pruned.from_dict(result)


class _Tasks:
    """The tasks of a plan that Ray has."""

    def __init__(self, plan: Plan, retries: int) -> None:
        self._plan = plan
        self._retries = retries
        self._names: dict[Any, str] = {}

    def submit(
        self, name: str, function: Callable[..., Any], arguments: tuple[object, ...], *, memory_bytes: int
    ) -> None:
        """Submits a task that calls ``function`` with the plan's path and ``arguments``."""
        task = ray.remote(function).options(
            name=name,
            num_cpus=self._plan.cpus,
            memory=memory_bytes,
            max_retries=self._retries,
        )
        self._names[task.remote(str(self._plan.path), *arguments)] = name

    def is_empty(self) -> bool:
        """Whether all tasks have ended."""
        return not self._names

    def wait(self) -> tuple[str, Any]:
        """Waits until a task has ended. Returns its name and its result."""
        (task,), _ = ray.wait(list(self._names), num_returns=1)
        name = self._names.pop(task)
        try:
            return name, ray.get(task)
        except exceptions.RayTaskError as e:
            if isinstance(e.cause, Error):
                raise e.cause from e
            raise
        except _LOST as e:
            raise self._lost(name, type(e).__name__) from e

    def cancel(self) -> None:
        """Ends all tasks, and the processes of those that run."""
        for task in self._names:
            ray.cancel(task, force=True)

    def _lost(self, name: str, found: str) -> ResourceError:
        file = self._plan.path
        expected = f"a result of {name} after at most {self._retries} retries"
        message = f"{file}: the worker or node of a task was lost: expected {expected}, found {found}"
        return ResourceError(message, file=file, expected=expected, found=found)


def _run_units(plan: Plan, tasks: _Tasks, listen: Listener) -> None:
    """Runs each unit once those that it needs are done."""
    order = TopologicalSorter({id: unit.needs for id, unit in plan.units.items()})
    order.prepare()
    began, done = time.monotonic(), 0

    def event(event: str) -> Event:
        seconds, all_units = time.monotonic() - began, len(plan.units)
        return {
            "event": event, "task": "units", "seconds": seconds, "steps": done, "total_steps": all_units,
        }

    listen(event("started"))
    while order.is_active():
        ended = []
        for id in order.get_ready():
            if plan.is_done(id):
                ended.append(id)
            else:
                memory_bytes = plan.units[id].memory_bytes
                tasks.submit(id, _run_unit, (id,), memory_bytes=memory_bytes)
        if not ended:
            ended.append(tasks.wait()[0])
        for id in ended:
            done += 1
            order.done(id)
            listen({**event("progress"), "name": id})
    listen(event("finished"))


def _run_unit(plan: str, unit: str) -> None:
    units.unit(plan, unit)


def _finish(plan: str, force: bool, restart: bool) -> dict[str, Any]:
    return units.finish(plan, force=force, restart=restart).to_dict()


@contextlib.contextmanager
def _connection(address: str | None) -> Iterator[None]:
    """A connection to the cluster, which is closed again if it was not there before."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address)
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_output(plan: Plan) -> None:
    """The task that publishes would refuse it after all the work."""
    if not plan.out.exists() or (plan.out.is_dir() and not any(plan.out.iterdir())):
        return
    expected = "a new or empty directory, or force to replace a finished output"
    found = "a directory with files" if plan.out.is_dir() else "a file"
    message = f"{plan.out}: output exists: expected {expected}, found {found}"
    raise OutputError(message, file=plan.out, expected=expected, found=found)


def _refuse_small_cluster(plan: Plan) -> None:
    """Ray would wait for a larger node for ever."""
    memory_bytes = max((unit.memory_bytes for unit in plan.units.values()), default=0)
    nodes = [
        (int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("memory", 0)))
        for node in ray.nodes()
        if node["Alive"]
    ]
    if any(cpus >= plan.cpus and memory >= memory_bytes for cpus, memory in nodes):
        return
    expected = f"a node with {plan.cpus} processors and {memory_bytes} bytes of memory"
    sizes = [f"{cpus} processors and {memory} bytes" for cpus, memory in sorted(set(nodes))]
    found = "nodes with " + ", ".join(sizes) if sizes else "no node"
    message = f"the Ray cluster is too small for the units of {plan.path}: expected {expected}, found {found}"
    raise ResourceError(message, file=plan.path, expected=expected, found=found)
