"""A Ray cluster of several nodes on this machine, and its processes."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_cpus": 1, "memory": 4 << 30}


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A cluster, which ``address="auto"`` finds. None of its processes is left."""
    # Names of sockets have at most 107 bytes.
    home = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    os.mkdir(os.path.join(home, "ray"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", home)
        environment.setenv("RAY_TMPDIR", home)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**NODE, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            environment.setenv("RAY_ADDRESS", started.address)
            for _ in range(nodes - 1):
                started.add_node(**NODE)
            yield started
        finally:
            ray.shutdown()
            started.shutdown()
            left = wait_until(lambda: not processes(home), 30)
            found = [process.cmdline() for process in processes(home)]
            shutil.rmtree(home, ignore_errors=True)
            assert left, found


def processes(mark: str) -> list[psutil.Process]:
    """The processes with a text in their command lines."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(mark in part for part in process.cmdline()):
                found.append(process)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition holds within some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def stopped_in_a_unit(among: Callable[[], list[psutil.Process]]) -> psutil.Process:
    """A worker in the middle of a unit: stopped, as its title, which is the unit's name, proves."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in among():
            with contextlib.suppress(psutil.Error):
                if not is_in_a_unit(process):
                    continue
                process.suspend()
                if is_in_a_unit(process):
                    return process
                process.resume()
    raise TimeoutError("no worker runs a unit")


def is_in_a_unit(process: psutil.Process) -> bool:
    """Whether a process is a worker that runs a unit."""
    return any(part.startswith("ray::layer-") for part in process.cmdline()[:1])


class Meanwhile:
    """Something that is done on another thread, whose exception is raised at the end."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._do()
        except BaseException as e:
            self._raised = e

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=90)
        assert not self._thread.is_alive()
        if self._raised is not None:
            raise self._raised


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises TimeoutError on this thread after some seconds; ends the process if that takes two minutes more."""

    def out_of_time(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 120, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def interrupt() -> None:
    """Sends Ctrl-C to this process."""
    os.kill(os.getpid(), signal.SIGINT)
