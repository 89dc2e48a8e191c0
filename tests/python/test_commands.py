"""Each function gives what the program writes with ``--format json``, as typed objects."""

from __future__ import annotations

import inspect as signatures
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import physarium
import pytest
from physarium import commands, results, units

# What differs from run to run.
VOLATILE = {"seconds", "tokens_per_second", "peak_rss_bytes", "out", "resident_bytes"}
VOLATILE |= {"memory_limit_bytes", "free_bytes"}


def program(*arguments: object) -> Any:
    """The JSON of the program."""
    command = [sys.executable, "-m", "physarium", *map(str, arguments), "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return json.loads(ended.stdout)


def steady(value: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def test_inspect(model: Path) -> None:
    found = physarium.inspect(model, skip=["*.k_proj.weight"])
    assert found.to_dict() == program("inspect", model, "--skip", "*.k_proj.weight")
    assert found.target.of_model.of == "model"
    assert not any("k_proj" in tensor.name for tensor in found.tensors)
    assert found == physarium.inspect(str(model), skip="*.k_proj.weight")


def test_prune_and_dry_run(model: Path, tmp_path: Path) -> None:
    options = ["--method", "magnitude", "--sparsity", "0.25", "--scope", "tensor"]
    planned = physarium.dry_run(
        model, tmp_path / "a", method="magnitude", sparsity=0.25, scope="tensor"
    )
    expected = program("prune", model, "--out", tmp_path / "a", *options, "--dry-run")
    assert steady(planned.to_dict()) == steady(expected)
    assert planned.streams is None and not planned.rewrites_readme and not (tmp_path / "a").exists()

    pruned = physarium.prune(
        model, tmp_path / "a", method="magnitude", sparsity=0.25, scope="tensor"
    )
    expected = program("prune", model, "--out", tmp_path / "b", *options)
    assert steady(pruned.to_dict()) == steady(expected)
    assert pruned.to_dict().keys() == expected.keys()
    assert pruned.pruned.of_target.share == pytest.approx(0.25, abs=1e-3)
    shards = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert shards
    for name in shards:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_activation_aware_dry_run_says_where_streams_are(model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "wanda", "pattern": "2:4", "calibration_tokens": 512}
    planned = physarium.dry_run(model, tmp_path / "a", window=256, memory="4GB", **options)
    assert planned.streams is not None and planned.streams.kept_in == "memory"
    assert planned.memory_limit_bytes == 4_000_000_000
    assert planned.recipe["method"]["calibration"]["tokens"] == 512
    same = physarium.dry_run(model, tmp_path / "a", window=256, memory=4_000_000_000, **options)
    assert same.memory_limit_bytes == planned.memory_limit_bytes


def test_a_model_card_in_the_readme(model: Path, tmp_path: Path) -> None:
    with_readme = tmp_path / "model"
    shutil.copytree(model, with_readme)
    (with_readme / "README.md").write_text("# Demo\n")
    assert physarium.dry_run(with_readme, tmp_path / "out", card=True).rewrites_readme
    physarium.prune(with_readme, tmp_path / "out", card=True)
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")
    found = physarium.verify(tmp_path / "out", against=with_readme)
    assert found.verified and found.rewritten == ("README.md",)
    assert found.to_dict() == program("verify", tmp_path / "out", "--against", with_readme)


def test_audit(model: Path, half: Path, root: Path, tmp_path: Path) -> None:
    claims = root / "demo" / "claims.toml"
    found = physarium.audit(half, against=model, claims=claims, report=tmp_path / "report")
    assert found.to_dict() == program("audit", half, "--against", model, "--claims", claims)
    assert found.denominator_correct and found.pruned is not None
    assert found.exit_code == 1 and {claim.verdict for claim in found.claims} & {"wrong"}
    page = physarium.audit(from_report=tmp_path / "report" / "physarium.audit.html")
    assert page == found
    counted = physarium.audit(half, from_journal=half / "physarium.journal.jsonl")
    assert counted.basis == "journal" and counted.pruned == found.pruned


def test_an_audit_that_can_count_nothing_says_so(model: Path) -> None:
    found = physarium.audit(model, target="*.norm.weight", against=model)
    assert found.exit_code in (0, 2)
    nothing = physarium.audit(model, against=model, skip="*")
    assert nothing.exit_code == 2 and nothing.target.elements == 0


def test_verify(model: Path, half: Path, tmp_path: Path) -> None:
    found = physarium.verify(half, against=model)
    assert found.to_dict() == program("verify", half, "--against", model)
    assert found.verified and found.pruned > 0
    forged = tmp_path / "forged"
    forged.mkdir()
    for path in half.iterdir():
        (forged / path.name).write_bytes(path.read_bytes())
    shard = next(forged.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    found = physarium.verify(forged, against=model)
    assert not found.verified
    assert found.to_dict() == program("verify", forged, "--against", model)
    assert any(finding.file == shard.name for finding in found.findings)


def test_evaluate(model: Path, half: Path, text: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    lines = [{"context": "The cat sat on the", "choices": ["mat", "moon"], "answer": 0}] * 3
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ["--text", text, "--window", 128, "--limit", 1024, "--against", model]
    found = physarium.evaluate(half, text=text, window=128, limit=1024, against=model)
    assert steady(found.to_dict()) == steady(program("eval", half, *given))
    assert found.against is not None and found.against.ratio > 1
    given_parts = [*given, "--parts", tmp_path / "parts"]
    assert program("eval", half, *given_parts, "--worker", "1/2")["scored"] == 0
    scored = physarium.score_parts(
        half, (0, 2), text=text, window=128, limit=1024, against=model, parts=tmp_path / "parts"
    )
    assert (scored.scored, scored.kept, scored.of) == (1, 0, 1)
    assert steady(program("eval", half, *given_parts)) == steady(found.to_dict())
    both = physarium.evaluate(
        half, text=text, window=128, limit=1024, against=model, choices=items, threads=1
    )
    assert both.perplexity == found.perplexity and both.choices is not None
    alone = physarium.evaluate_choices(half, choices=items, against=model)
    assert steady(alone.to_dict()) == steady(
        program("eval", half, "--choices", items, "--against", model)
    )
    assert alone.accuracy == both.choices.accuracy and alone.accuracy.of == "items"


def test_pack_and_unpack(half: Path, tmp_path: Path) -> None:
    packed = physarium.pack(half, tmp_path / "half.physpack")
    expected = program("pack", half, "--out", tmp_path / "again.physpack")
    assert steady(packed.to_dict()) == steady(expected)
    assert packed.output_bytes < packed.input_bytes
    unpacked = physarium.unpack(tmp_path / "half.physpack", tmp_path / "half")
    expected = program("unpack", tmp_path / "half.physpack", "--out", tmp_path / "again")
    assert steady(unpacked.to_dict()) == steady(expected)
    for path in half.iterdir():
        assert (tmp_path / "half" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("function", "command", "elsewhere"),
    [
        (commands.inspect, "inspect", {"tensors"}),
        (commands.prune, "prune", {"dry_run"}),
        (commands.dry_run, "prune", {"dry_run"}),
        (commands.audit, "audit", set()),
        (commands.verify, "verify", set()),
        (commands.evaluate, "eval", {"worker"}),
        (commands.score_parts, "eval", {"worker", "choices", "per_item", "per_token"}),
        (commands.pack, "pack", set()),
        (commands.unpack, "unpack", set()),
        # The job of a scheduler is a text for the shell.
        (units.plan, "plan", {"template", "workers"}),
        (units.unit, "unit", {"worker", "take_over_after"}),
        (units.work, "unit", {"worker"}),
        (units.finish, "finish", set()),
    ],
)
def test_functions_have_the_options_of_their_commands(
    function: Callable[..., Any], command: str, elsewhere: set[str]
) -> None:
    asked = [sys.executable, "-m", "physarium", command, "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", shown, re.MULTILINE))
    # What the package does itself.
    options -= {"format", "progress", "quiet", "help"}
    names = {option.replace("-", "_") for option in options} - elsewhere
    parameters = set(signatures.signature(function).parameters)
    positional = {"model", "dir", "file", "id", "share"} | ({"plan"} - names)
    assert parameters - {"progress"} - positional == names


def test_a_field_with_a_default_is_a_key_that_can_be_absent() -> None:
    share = results.Share(part=0, whole=0, of="target", share=None)
    assert share.to_dict() == {"part": 0, "whole": 0, "of": "target", "share": None}
    assert results.Share.from_dict(share.to_dict()) == share
    text = {"part": 1, "whole": 4, "of": "items", "share": 0.25, "stderr": None}
    assert results.Accuracy.from_dict(text).to_dict() == text
