"""How a stage maps over shards; ``map_shards`` is the one entry."""

from srgpt.engine.local import map_shards

__all__ = ["map_shards"]
