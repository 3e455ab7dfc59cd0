"""The one way in which a stage maps over a table: unfinished shards in, finished shards out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srgpt.engine.local import map_local
from srgpt.engine.task import Device, Job, Task, Transform
from srgpt.errors import InputError, SrgptError
from srgpt.params import EngineParams
from srgpt.progress import tally
from srgpt.storage import TableWriter, remove


def map_table(
    transform: Transform,
    tasks: Sequence[Task],
    writer: TableWriter,
    engine: EngineParams,
    *,
    device: Device = "cpu",
) -> list[str]:
    """Make the shard of every task that ``writer`` lacks; return the names of all, ready to commit.

    ``transform`` (see :data:`Transform`) must be picklable: a module-level function, or a ``functools.partial``
    of one. What is costly to load it keeps for the life of its process, for example with ``functools.cache``.
    ``device`` says what it works on. The result depends neither on the backend nor on the
    number of workers. The first error stops the rest, and finished shards stay for the next run; an item that
    kills its process twice is set aside as ``kills-worker``.
    """
    each = engine.gpus_per_worker
    if device != "cpu" and each > 1 and not each.is_integer():
        raise InputError(
            f"engine.gpus_per_worker = {each:g}: expected a whole number, or at most 1 for a share of one"
        )
    names = [task.name for task in tasks]
    missing = set(writer.missing(names))
    todo = [task for task in tasks if task.name in missing]
    if not todo:
        return names
    job = Job(transform, writer.work, writer.table)
    with tally(f"{writer.stage} {writer.dataset}", total=sum(t.size for t in todo), unit="scenes") as counted:
        _backend(engine)(job, todo, engine, counted, device=device)
    return names


def require_scenes(writer: TableWriter, names: Sequence[str]) -> list[dict[str, str]]:
    """Return what was set aside of finished shards.

    Raises :class:`SrgptError` where that is every scene, and forgets the shards, so that a repaired source is read
    afresh.
    """
    markers = writer.markers(names)
    rejected = [item for marker in markers for item in marker["rejected"]]
    if any(marker["shard"]["rows"] for marker in markers):
        return rejected
    reasons = sorted({item["reason"] for item in rejected})
    counts = ", ".join(f"{sum(item['reason'] == r for item in rejected)} {r}" for r in reasons)
    shown = "".join(f"\n  {item['id']}: {item['reason']}: {item['detail']}" for item in rejected[:5])
    remove(writer.work)
    raise SrgptError(
        f"{writer.stage} {writer.dataset}: every scene was set aside ({counts}). The first:{shown}"
    )


def _backend(engine: EngineParams) -> Callable[..., object]:
    if engine.backend == "local":
        return map_local
    try:
        from srgpt.engine.ray import map_ray
    except ModuleNotFoundError as error:
        raise InputError(
            f"engine.backend = ray needs Ray, which is not installed ({error}): pip install 'srgpt[ray]'"
        ) from error
    return map_ray
