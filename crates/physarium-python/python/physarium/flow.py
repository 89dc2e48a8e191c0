"""The solvers for weights in memory: numpy arrays in and out, no files.

Needs the package numpy (``pip install physarium[numpy]``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _physarium
from ._call import arguments
from .errors import InputError
from .options import Arithmetic, Effort, MatrixScope, Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def prune_matrix(
    w: NDArray[np.float32],
    *,
    gram: NDArray[np.float32] | None = None,
    method: Method | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    scope: MatrixScope | None = None,
    effort: Effort | None = None,
    block_size: int | None = None,
    iterations: int | None = None,
    beta: float | None = None,
    inflow: float | None = None,
    allow_nonfinite: bool = False,
    arithmetic: Arithmetic | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Prunes the weights of one projection into a new array.

    ``w`` is float32 ``[out_features, in_features]``. ``gram`` is XᵀX ÷ tokens, float32 ``[in_features, in_features]``, of the
    inputs X ``[tokens, in_features]`` on a calibration text.

    Without ``gram``, ``method`` is ``"magnitude-flow"`` (the default) or ``"magnitude"``; with it, ``"activation-flow"`` (the
    default), ``"wanda"`` or ``"sparsegpt"``, which need ``sparsity`` or ``pattern``. The other options are those of
    :func:`physarium.prune`; one that would have no effect is an error.

    The zeros are +0.0; a sparsity counts weights that were zero before. Any number of ``threads`` gives the same array.
    """
    if method is None and gram is not None:
        method = "activation-flow"
    options = {
        "method": method,
        "sparsity": sparsity,
        "pattern": pattern,
        "scope": scope,
        "effort": effort,
        "block_size": block_size,
        "iterations": iterations,
        "beta": beta,
        "inflow": inflow,
        "allow_nonfinite": allow_nonfinite,
        "arithmetic": arithmetic,
        "threads": threads,
    }
    weights = _matrix("weights", w)
    if gram is not None:
        gram = _matrix("gram", gram)
        inputs = weights.shape[1]
        if gram.shape != (inputs, inputs):
            raise _wrong("gram", f"the shape ({inputs}, {inputs})", str(gram.shape))
    return _physarium.prune_matrix(weights, gram, arguments(options))


def _matrix(name: str, given: Any) -> NDArray[np.float32]:
    """The array, if it is a float32 matrix; in memory it may have any order."""
    import numpy as np

    if not isinstance(given, np.ndarray):
        raise _wrong(name, "a numpy array", type(given).__name__)
    if given.dtype != np.float32:
        raise _wrong(name, "float32", str(given.dtype))
    if given.ndim != 2:
        raise _wrong(name, "2 dimensions", str(given.ndim))
    return given


def _wrong(name: str, expected: str, found: str) -> InputError:
    message = f"{name}: expected {expected}, found {found}"
    return InputError(message, tensor=name, expected=expected, found=found)
