from __future__ import annotations

import numpy as np
import pytest

from srgpt import storage
from srgpt.errors import InputError
from srgpt.params import Params
from srgpt.records import Box, Conversation, Node, SceneGraph
from srgpt.stages import ask


def make_graph(index: int, count: int = 5, truth: bool = True) -> SceneGraph:
    rng = np.random.default_rng(index)
    nodes = []
    for i in range(count):
        box = Box(rng.uniform([-3, -1, 1], [3, 1, 9]), rng.uniform(0.1, 1.5, 3))
        rle = {"size": [40, 60], "counts": "P;"}
        nodes.append(Node(i, "box", "box", (0, 0, 9, 9), rle, perceived=box, truth=box if truth else None))
    return SceneGraph("toy", f"s{index}", 60, 40, np.eye(3), tuple(nodes))


def write(url: str, *shards: list[SceneGraph]) -> str:
    writer = storage.TableWriter(url, "graphs", stage="lift", dataset="toy", params={})
    names = [storage.shard_name(i) for i in range(len(shards))]
    for name, graphs in zip(names, shards, strict=True):
        storage.write_shard(writer.work, name, "graphs", [g.to_row() for g in graphs])
    writer.commit(names)
    return url


def params(workers: int = 1, **sections) -> Params:
    return Params.model_validate({"engine": {"workers": workers}, **sections})


@pytest.fixture
def graphs(tmp_path) -> str:
    return write(
        str(tmp_path / "graphs"), [make_graph(i) for i in range(6)], [make_graph(i) for i in range(6, 9)]
    )


def test_conversations_carry_what_the_contract_says(graphs, tmp_path):
    out = str(tmp_path / "conversations")
    manifest = ask.run(params(), source=graphs, out=out)
    assert (manifest.table, manifest.stage, manifest.dataset) == ("conversations", "ask", "toy")
    assert [s.rows for s in manifest.shards] == [6, 3]
    rows = list(storage.read_rows(out, "conversations"))
    assert set(rows[0]["turns"][0]) == {
        "question", "answer", "category", "regions", "value", "unit", "sigma",
    }  # fmt: skip
    assert set(rows[0]["regions"][0]) == {"id", "category", "rle", "bbox"}
    conversations = [Conversation.from_row(r) for r in rows]
    assert [c.conversation_id for c in conversations] == [f"s{i}-0" for i in range(9)]
    assert manifest.statistics["turns"] == sum(len(c.turns) for c in conversations) == 90
    assert sum(manifest.statistics["categories"].values()) == 90
    left = [t.value for c in conversations for t in c.turns if t.category == "left_predicate"]
    assert manifest.statistics["positive_share"]["left_predicate"] == pytest.approx(np.mean(left), abs=1e-4)


def test_workers_and_place_do_not_change_a_byte(graphs, tmp_path):
    one = ask.run(params(1), source=graphs, out=str(tmp_path / "one"))
    two = ask.run(params(2), source=graphs, out=str(tmp_path / "elsewhere" / "two"))
    assert one.shards == two.shards
    assert one.statistics == two.statistics
    other = ask.run(params(seed=8), source=graphs, out=str(tmp_path / "other"))
    assert other.fingerprint != one.fingerprint


def test_several_conversations_of_other_length(graphs, tmp_path):
    out = str(tmp_path / "conversations")
    ask.run(params(ask={"conversations": 2, "turns": 4, "truth": "cuboids"}), source=graphs, out=out)
    conversations = [Conversation.from_row(r) for r in storage.read_rows(out, "conversations")]
    assert [c.conversation_id for c in conversations[:3]] == ["s0-0", "s0-1", "s1-0"]
    assert {len(c.turns) for c in conversations} == {4}
    assert {c.truth for c in conversations} == {"cuboids"}


def test_scenes_with_nothing_to_ask_are_set_aside(tmp_path):
    source = write(str(tmp_path / "graphs"), [make_graph(0), make_graph(1, count=0), make_graph(2)], [])
    manifest = ask.run(params(), source=source, out=str(tmp_path / "conversations"))
    assert (manifest.rows, manifest.rejected) == (2, {"no-objects": 1})
    assert [s.rows for s in manifest.shards] == [2, 0]


def test_not_one_question_is_an_error_that_says_what_is_missing(tmp_path):
    source = write(str(tmp_path / "graphs"), [make_graph(0, truth=False)])
    with pytest.raises(InputError, match="cuboids needs ground-truth boxes"):
        ask.run(params(ask={"truth": "cuboids"}), source=source, out=str(tmp_path / "conversations"))
    assert not (tmp_path / "conversations").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"truth": "cuboids"}, "its facts come from perceived clouds, and ask.truth is cuboids"),
        ({"reasoning": ["facts", "ratio"]}, "with ask.compat=reference only facts can be asked"),
        ({"units": "metres"}, "ask.units = metres: SpatialRGPT draws units"),
    ],
)
def test_what_the_reference_cannot_ask_is_refused(graphs, tmp_path, settings, says):
    params = Params.model_validate({"ask": {"compat": "reference", **settings}})
    with pytest.raises(InputError, match=says):
        ask.run(params, source=graphs, out=str(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_another_table_is_refused(graphs, tmp_path):
    ask.run(params(), source=graphs, out=str(tmp_path / "conversations"))
    with pytest.raises(InputError, match="graphs was expected"):
        ask.run(params(), source=str(tmp_path / "conversations"), out=str(tmp_path / "again"))
