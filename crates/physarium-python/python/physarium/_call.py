"""Calls of the program's commands: keywords in, a result or an exception out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any

from . import _physarium
from .progress import Listener

_LOGGER = logging.getLogger("physarium")
_POSITIONAL = ("model", "dir", "file")


def run(
    command: str, given: Mapping[str, Any], positional: Collection[str] = _POSITIONAL
) -> tuple[int, dict[str, Any]]:
    """Runs a command with its options by name, some of them ``positional``. Returns its exit code and its result."""
    options = dict(given)
    progress: Listener | None = options.pop("progress", None)

    def listen(text: str) -> None:
        event = json.loads(text)
        if event["event"] in ("note", "error"):
            _LOGGER.warning("%s", event["text"])
        if progress is not None:
            progress(event)

    exit_code, result = _physarium.call([command, *arguments(options, positional)], listen)
    return exit_code, json.loads(result)


def arguments(options: Mapping[str, Any], positional: Collection[str] = ()) -> list[str]:
    """Options by name as arguments of the command line; those that are ``None`` or ``False`` are not given."""
    named: list[str] = []
    unnamed: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        if name in positional:
            unnamed.append(_text(name, value))
            continue
        option = "--" + name.replace("_", "-")
        if value is True:
            named.append(option)
        elif isinstance(value, (list, tuple)):
            named += [f"{option}={_text(name, item)}" for item in value]
        else:
            named.append(f"{option}={_text(name, value)}")
    return [*named, "--", *unnamed]


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(value, "__index__"):
        return str(int(value))
    if hasattr(value, "__float__"):
        return repr(float(value))
    raise TypeError(f"{name}: expected text, a number or a path, found {type(value).__name__}")
