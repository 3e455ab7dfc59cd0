"""How a stage maps over shards: in processes of this machine, or on a Ray cluster.

``map_table`` is the one entry. ``task`` is one shard's worth of work, ``worker`` a process that does it and is
replaced when it dies, ``local`` many of them, ``ray`` the same on a cluster.
"""

from srgpt.engine.table import map_table, require_scenes
from srgpt.engine.task import Mapped, Row, Task, table_tasks

__all__ = ["Mapped", "Row", "Task", "map_table", "require_scenes", "table_tasks"]
