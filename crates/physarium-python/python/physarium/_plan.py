"""Plans of units of work as schedulers need them; docs/FORMATS.md has the format."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from dataclasses import dataclass
from typing import Any

from .errors import InputError

_SCHEMA = "physarium.units/1"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit of work."""

    needs: tuple[str, ...]
    """Ids of units that must be done before."""
    memory_bytes: int
    """Most resident memory, an estimate."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, without its calibration tokens."""

    path: pathlib.Path
    out: pathlib.Path
    replaces: str | None
    """SHA-256 of the manifest of a finished output that is to be replaced."""
    cpus: int
    """Processors of each unit."""
    key: str
    units: dict[str, Unit]
    """Units by id, each after those that it needs."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a plan. What it says of the run is checked by the program, in each unit."""
        file = pathlib.Path(os.fsdecode(path)).absolute()
        try:
            data = json.loads(file.read_bytes())
        except OSError as e:
            raise _not_a_plan(file, e.strerror or str(e)) from e
        except ValueError as e:
            raise _not_a_plan(file, f"no JSON: {e}") from e
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != _SCHEMA:
            raise _not_a_plan(file, repr(schema))
        try:
            return cls._of_json(file, data)
        except (KeyError, TypeError, ValueError) as e:
            raise _not_a_plan(file, f"{type(e).__name__}: {e}") from e

    @classmethod
    def _of_json(cls, path: pathlib.Path, data: dict[str, Any]) -> Plan:
        units: dict[str, Unit] = {}
        for unit in data["units"]:
            for needed in unit["needs"]:
                if needed not in units:
                    raise ValueError(f"{unit['id']} needs {needed}, which is not before it")
            memory_bytes = int(unit["cost"]["memory_bytes"])
            units[unit["id"]] = Unit(needs=tuple(unit["needs"]), memory_bytes=memory_bytes)
        out, cpus, key = pathlib.Path(data["out"]), int(data["cpus"]), str(data["key"])
        replaces = None if data["replaces"] is None else str(data["replaces"])
        return cls(path=path, out=out, replaces=replaces, cpus=cpus, key=key, units=units)

    def would_replace(self) -> bool:
        """Whether the output is there that was to be replaced when the plan was made."""
        try:
            manifest = (self.out / "physarium.manifest.json").read_bytes()
        except OSError:
            return False
        return hashlib.sha256(manifest).hexdigest() == self.replaces

    def is_done(self, unit: str) -> bool:
        """Whether a unit has a result, by its record beside the output."""
        dir = self.out.with_name(f".{self.out.name}.physarium-units")
        try:
            record = json.loads((dir / "done" / unit / "unit.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(record, dict) and record.get("key") == self.key


def _not_a_plan(file: pathlib.Path, found: str) -> InputError:
    expected = f"a plan of units of work ({_SCHEMA})"
    message = f"{file}: expected {expected}, found {found}"
    return InputError(message, file=file, expected=expected, found=found)
