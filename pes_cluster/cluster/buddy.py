"""A buddy: keeps copies of blocks that are computed on another host."""

import numpy as np

Arrays = dict[str, np.ndarray]  # As in `leaves`, which would bring JAX along.


class Buddy:
    """Holds snapshots by name; a process of its own, without JAX."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, Arrays]] = {}

    def keep(self, name: str, blocks: dict[int, Arrays]) -> None:
        """Takes a snapshot into its own memory."""
        self._kept[name] = {
            index: {leaf: array.copy() for leaf, array in arrays.items()}
            for index, arrays in blocks.items()
        }

    def give(self, name: str) -> dict[int, Arrays]:
        """Returns a snapshot."""
        return self._kept[name]

    def drop(self, name: str) -> None:
        """Forgets a snapshot."""
        self._kept.pop(name, None)
