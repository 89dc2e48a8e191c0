"""The values of options that have names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, Union

Path = Union[str, "os.PathLike[str]"]
"""A file or directory."""
Globs = Union[str, Sequence[str]]
"""One or several globs on the names of tensors."""
Method = Literal["magnitude-flow", "magnitude", "wanda", "sparsegpt", "activation-flow"]
"""A pruning method (docs/ALGORITHM.md)."""
Allocation = Literal["uniform", "flow"]
"""How a sparsity is spread over tensors."""
Effort = Literal["quick", "standard", "best"]
"""Computation that the activation flow spends on quality."""
Scope = Literal["tile", "tensor", "model"]
"""What a sparsity is exact in."""
MatrixScope = Literal["tile", "tensor"]
"""What a sparsity of one matrix is exact in."""
Arithmetic = Literal["f32", "bf16", "bf16x2"]
"""The arithmetic of products with activations."""
EvaluationArithmetic = Literal["f32", "bf16x2"]
"""The arithmetic of an evaluation."""
BosPlace = Literal["text", "each-window"]
"""Where the token for the beginning of a text stands."""
