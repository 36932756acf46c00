"""Which shard owns which block: contiguous and even."""

import itertools


def assign(num_blocks: int, shards: int) -> list[list[int]]:
    """Returns the block indices of each shard; shards without blocks are left out."""
    shards = min(shards, num_blocks)
    borders = [num_blocks * shard // shards for shard in range(shards + 1)]
    return [list(range(*pair)) for pair in itertools.pairwise(borders)]
