from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["call", "program", "provoke_panic", "prune_matrix"]

def program(arguments: Sequence[str]) -> int: ...
def call(
    arguments: Sequence[str], listener: Callable[[str], object] | None = None
) -> tuple[int, str]: ...
def prune_matrix(
    weights: NDArray[np.float32],
    gram: NDArray[np.float32] | None,
    arguments: Sequence[str],
) -> NDArray[np.float32]: ...
def provoke_panic(message: str) -> None: ...
