"""Progress of a call: events, and an adapter for tqdm.

A function that takes ``progress`` calls it with each event, from the thread that it was called on. An exception that it
raises stops the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict


class _Kind(TypedDict):
    event: str


class Event(_Kind, total=False):
    """An event as ``--progress json`` writes it (docs/FORMATS.md); which keys it has depends on ``event``.

    ``started``, ``progress`` and ``finished`` have a ``task``, its ``seconds`` so far, and how far it is in bytes, tokens or
    layers. ``resumed`` says what is kept of an interrupted run; ``run`` says which unit of :func:`physarium.work` begins; ``step`` says
    ``what``; ``note`` and ``error`` have a text.
    """

    task: str
    seconds: float
    bytes: int
    total_bytes: int
    tensors: int
    total_tensors: int
    tokens: int
    total_tokens: int
    layer: int
    layers: int
    steps: int
    total_steps: int
    shards: int
    of: int
    name: str
    number: int
    what: str
    text: str


Listener = Callable[[Event], object]
"""What ``progress`` takes."""

_UNITS = ("bytes", "tokens", "steps")


class tqdm:
    """Shows progress with tqdm, one bar for each task: ``prune(..., progress=physarium.progress.tqdm())``.

    Keywords are those of the bar, such as ``leave=False``. Needs the package tqdm (``pip install physarium[tqdm]``).
    """

    def __init__(self, **bar: Any) -> None:
        try:
            from tqdm.auto import tqdm as make
        except ImportError as e:
            raise ImportError(
                "physarium.progress.tqdm needs the package tqdm: pip install physarium[tqdm]"
            ) from e
        self._make: Callable[..., Any] = make
        self._keywords = bar
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if event["event"] == "started":
            # Tasks follow each other: the one before is done.
            if self._bar is not None and self._bar.total is not None:
                self._bar.update(self._bar.total - self._bar.n)
            self.close()
            self._bar = self._begin(event)
        elif event["event"] in ("progress", "finished") and self._bar is not None:
            unit = self._bar.unit_of_event
            self._bar.update(event.get(unit, 0) - self._bar.n)
        if event["event"] == "finished":
            self.close()

    def close(self) -> None:
        """Closes the bar of the task that was last begun."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _begin(self, event: Event) -> Any:
        unit = next(unit for unit in _UNITS if unit in event)
        shown = {"bytes": "B", "tokens": " tokens", "steps": " steps"}[unit]
        settings = {
            "total": event.get(f"total_{unit}"),
            "desc": event.get("task"),
            "unit": shown,
            "unit_scale": unit == "bytes",
        }
        bar = self._make(**{**settings, **self._keywords})
        bar.unit_of_event = unit
        return bar
