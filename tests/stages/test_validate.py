"""The validate stage over small tables made by hand, whole and poisoned."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgpt import storage
from srgpt.curation import expectations, frames, report, totals
from srgpt.curation.store import Store
from srgpt.errors import InputError, SrgptError
from srgpt.exchange import importing
from srgpt.params import ValidateParams, build, load
from srgpt.records import Rejected, encode_depth, encode_png, encode_rle
from srgpt.stages import ask, ingest, lift, perceive, validate
from tests.exchange.rows import llava_row, osd_row, write_pictures, write_rows

WIDTH, HEIGHT = 32, 24
LEFT = {"center": [-1.0, 0.0, 4.0], "size": [1.0, 1.0, 1.0]}
RIGHT = {"center": [1.0, -0.5, 8.0], "size": [0.5, 2.0, 0.5]}
BBOXES = {3: (2, 4, 10, 20), 5: (20, 2, 24, 16)}
TRACK = validate._track
STAGES = {"scenes": "ingest", "perceived": "perceive", "graphs": "lift", "conversations": "ask"}

# Question, answer, category, regions, value, unit. Distance: sqrt(4 + 0.25 + 16) = 4.5, on ground sqrt(20)
TURNS = (
    ("Is <region0> to the left of <region1>?", "Yes, Region [0] is.", "left_predicate", [3, 5], 1.0, "truth"),
    ("Is <region0> above <region1>?", "No.", "above_predicate", [3, 5], 0.0, "truth"),
    ("Which is taller, <region0> or <region1>?", "Region [1].", "tall_choice", [3, 5], 0.0, "truth"),
    ("Does <region0> lie behind <region1>?", "No, it does not.", "behind_predicate", [3, 5], 0.0, "truth"),
    ("Is <region0> smaller than <region1>?", "No.", "small_predicate", [3, 5], 0.0, "truth"),
    ("Is <region0> wider than <region1>?", "Yes.", "wide_predicate", [3, 5], 1.0, "truth"),
    ("How wide is <region0>?", "Region [0] is 1.00 meters wide.", "width_data", [3], 1.0, "metres"),
    ("How tall is <region0>?", "6.56 feet.", "height_data", [5], 2.0, "metres"),
    ("How far is <region0> from <region1>?", "4.50 meters.", "distance_data", [3, 5], 4.5, "metres"),
    (
        "<region0> to <region1> on the ground?",
        "14.67 feet.",
        "horizontal_distance_data",
        [3, 5],
        20**0.5,
        "metres",
    ),
    (
        "How much higher is <region1> than <region0>?",
        "50.00 cm.",
        "vertical_distance_data",
        [3, 5],
        0.5,
        "metres",
    ),
    ("Where is <region1>, seen from <region0>?", "At 1 o'clock.", "direction", [3, 5], 1.0, "clock_hours"),
)


def _mask(box: tuple[int, int, int, int]) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return encode_rle(mask)


def _scene(scene: str) -> dict[str, Any]:
    regions = [
        {
            "id": key,
            "category": "chair",
            "label": "red chair",
            "bbox": [float(v) for v in box],
            "rle": _mask(box),
            "mask_source": "given",
            "cuboid": {
                "center": [0.0, 0.0, 4.0],
                "size": [1.0, 1.0, 1.0],
                "rotation": list(np.eye(3).reshape(-1)),
            },
            "visibility": 0.9,
            "truncation": -1.0,
            "score": 1.0,
        }
        for key, box in BBOXES.items()
    ]
    return {
        "dataset": "toy",
        "scene_id": scene,
        "width": WIDTH,
        "height": HEIGHT,
        "image": encode_png(np.full((HEIGHT, WIDTH, 3), 99, dtype=np.uint8)),
        "depth": encode_depth(np.full((HEIGHT, WIDTH), 2.5)),
        "depth_source": "given",
        "intrinsics": [30.0, 30.0, 15.5, 11.5],
        "intrinsics_source": "given",
        "gravity": [0.0, 1.0, 0.0],
        "gravity_source": "given",
        "uri": f"procedural://room/{scene}",
        "licence": "Apache-2.0",
        "tags": [],
        "regions": regions,
    }


def _graph(scene: str) -> dict[str, Any]:
    nodes = [
        {
            "id": key,
            "category": "chair",
            "label": "red chair",
            "bbox": [float(v) for v in BBOXES[key]],
            "rle": _mask(BBOXES[key]),
            "perceived": box,
            "oriented": {**box, "yaw": 0.0},
            "truth": box,
            "dropped": None,
            "mask_points": 100,
            "kept_points": 60,
            "depth_coverage": 1.0,
            "cluster_share": 0.9,
            "visibility": 0.9,
            "truncation": -1.0,
        }
        for key, box in ((3, LEFT), (5, RIGHT))
    ]
    return {
        "dataset": "toy",
        "scene_id": scene,
        "width": WIDTH,
        "height": HEIGHT,
        "rotation": list(np.eye(3).reshape(-1)),
        "nodes": nodes,
    }


def _conversation(scene: str) -> dict[str, Any]:
    names = ("question", "answer", "category", "regions", "value", "unit")
    return {
        "dataset": "toy",
        "scene_id": scene,
        "conversation_id": f"{scene}-0",
        "truth": "perceived",
        "width": WIDTH,
        "height": HEIGHT,
        "regions": [
            {"id": k, "category": "chair", "rle": _mask(b), "bbox": [float(v) for v in b]}
            for k, b in BBOXES.items()
        ],
        "turns": [dict(zip(names, turn, strict=True)) for turn in TURNS],
    }


ROWS = {"scenes": _scene, "perceived": _scene, "graphs": _graph, "conversations": _conversation}
Poison = Callable[[dict[str, Any]], None]


def make_chain(folder: Path, poisons: dict[tuple[str, str], Poison] | None = None, scenes: int = 6) -> str:
    """Write four tables of two shards each and return the last; ``poisons[table, scene]`` changes one row."""
    before: dict[str, str] = {}
    for role, stage in STAGES.items():
        url = str(folder / role)
        table = "scenes" if role == "perceived" else role
        writer = storage.TableWriter(url, table, stage=stage, dataset="toy", params={}, inputs=before)
        names = []
        for shard, start in enumerate(range(0, scenes, scenes // 2)):
            rows = [copy.deepcopy(ROWS[role](f"s{i}")) for i in range(start, start + scenes // 2)]
            for row in rows:
                (poisons or {}).get((role, row["scene_id"]), lambda row: None)(row)
            names.append(storage.shard_name(shard))
            storage.write_shard(writer.work, names[-1], table, rows)
        writer.commit(names)
        before = {role: url}
    return str(folder / "conversations")


def run(source: str, out: Path, *overrides: str) -> dict[str, Any]:
    settings = ["validate.curve_scenes=2", "validate.gallery=4", *overrides]
    return validate.run(load(cwd=out.parent, overrides=settings), source=source, out=str(out))


@pytest.fixture(scope="module", autouse=True)
def no_tracking() -> Iterator[None]:
    """Leave MLflow out, which takes longer than all the rest; the tests of it bring it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "_track", lambda *args: None)
        yield


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Data Docs out: rendering them is most of a run."""
    monkeypatch.setattr(expectations, "render", lambda context: None)


def broken(
    folder: Path, poisons: dict[tuple[str, str], Poison], *overrides: str, scenes: int = 6
) -> tuple[str, dict[str, Any]]:
    """Run on a poisoned chain; return the error's text and the summary that was written before it."""
    source = make_chain(folder, poisons, scenes)
    with pytest.raises(SrgptError) as error:
        run(source, folder / "report", *overrides)
    assert not isinstance(error.value, InputError)
    assert (folder / "report" / "index.html").exists()
    return str(error.value), json.loads((folder / "report" / "summary.json").read_text())


def failed_rules(summary: dict[str, Any]) -> set[str]:
    return {
        rule["rule"] for rule in summary["rules"] if not rule["passed"] and rule["severity"] == "critical"
    }


def warned_rules(summary: dict[str, Any]) -> set[str]:
    return {rule["rule"] for rule in summary["rules"] if not rule["passed"] and rule["severity"] == "warning"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("good")
    return folder, run(make_chain(folder), folder / "report")


def test_a_good_dataset_passes_and_every_row_is_judged(good: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = good
    assert summary["passed"]
    assert failed_rules(summary) == set()
    checked = {rule["rule"]: rule["checked"] for rule in summary["rules"]}
    assert checked["image_readable"] == 12  # six scenes, as ingested and as perceived
    assert checked["region_mask_decodes"] == 24
    assert checked["answer_agrees"] == 6 * len(TURNS)
    assert summary["rows"] == {"scenes": 6, "perceived": 6, "graphs": 6, "conversations": 6}
    assert json.loads((folder / "report" / "summary.json").read_text()) == summary


def test_the_report_stands_alone(good: tuple[Path, dict[str, Any]]) -> None:
    report = good[0] / "report"
    pages = sorted(report.rglob("*.html"))
    assert report / "data_docs" / "index.html" in pages
    assert len([p for p in pages if "validations" in p.parts]) >= 9
    for page in pages:
        text = page.read_text()
        assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|png)', text), page
        for link in re.findall(r'href="([^"#:]+)"', text):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_own_files_are_the_same_every_time(good: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run(str(good[0] / "conversations"), tmp_path / "again")
    for name in ("summary.json", "index.html"):
        assert (tmp_path / "again" / name).read_bytes() == (good[0] / "report" / name).read_bytes()
        assert str(good[0]) not in (tmp_path / "again" / name).read_text()


def test_perfect_perception_is_measured_as_perfect(good: tuple[Path, dict[str, Any]]) -> None:
    quality = good[1]["quality"]
    assert quality["available"]
    labels = {fact["fact"]: fact for fact in quality["labels"]}
    assert labels["behind_front"]["count"] == 6  # one pair per scene
    assert labels["behind_front"]["accuracy"] == 1.0
    assert {fact["median_abs_rel"] for fact in quality["metrics"]} == {0.0}


# The four poisons -------------------------------------------------------------------------------------------


def _depth_file(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


def _negative(dtype: type) -> Poison:
    values = np.full((HEIGHT, WIDTH), 2500, dtype=dtype)
    values[5, 7] = -40
    return lambda row: row.update(depth=_depth_file(values))


@pytest.mark.usefixtures("plain_report")
def test_negative_depth(tmp_path: Path) -> None:
    text, summary = broken(
        tmp_path, {("perceived", "s3"): _negative(np.int32), ("scenes", "s4"): _negative(np.float32)}
    )
    assert "depth_not_negative" in failed_rules(summary)
    assert "depth_not_negative (no depth is negative): 2 of 12 scenes\n" in text
    assert f"{tmp_path}/perceived/part-00001.parquet row 0 (scene_id s3): -0.04" in text
    assert f"{tmp_path}/scenes/part-00001.parquet row 1 (scene_id s4): -0.04" in text


@pytest.mark.usefixtures("plain_report")
def test_unknown_region(tmp_path: Path) -> None:
    poison = _turn(8, regions=[3, 99])
    text, summary = broken(tmp_path, {("conversations", "s3"): poison})
    assert "region_known" in failed_rules(summary)
    where = "conversations/part-00001.parquet row 0 (scene_id s3, conversation_id s3-0, turn 8)"
    assert f"{where}: region 99 is unknown" in text


@pytest.mark.usefixtures("plain_report")
def test_broken_rle_does_not_crash(tmp_path: Path) -> None:
    broken_strings = {"s1": "`" * 300, "s3": "garbage!", "s4": "0" * 5000, "s5": "é"}
    poisons: dict[tuple[str, str], Poison] = {
        ("conversations", scene): lambda row, text=text: row["regions"][1]["rle"].update(counts=text)
        for scene, text in broken_strings.items()
    }
    poisons["perceived", "s3"] = lambda row: row["regions"][1]["rle"].update(counts="0")
    poisons["graphs", "s3"] = lambda row: row["nodes"][1]["rle"].update(counts=None)
    text, summary = broken(tmp_path, poisons)
    assert {"region_mask_decodes", "node_mask_decodes", "asked_region_mask_decodes"} <= failed_rules(summary)
    for table in ("perceived", "graphs"):
        assert f"{table}/part-00001.parquet row 0 (scene_id s3, region 5): broken RLE" in text
    asked = next(rule for rule in summary["rules"] if rule["rule"] == "asked_region_mask_decodes")
    assert [example["scene_id"] for example in asked["examples"]] == ["s1", "s3", "s4", "s5"]


@pytest.mark.usefixtures("plain_report")
def test_answer_that_disagrees_with_its_number(tmp_path: Path) -> None:
    text, summary = broken(tmp_path, {("conversations", "s3"): _turn(8, answer="4.52 meters.")})
    assert failed_rules(summary) == {"answer_agrees"}
    where = "conversations/part-00001.parquet row 0 (scene_id s3, conversation_id s3-0, turn 8)"
    assert f"{tmp_path}/{where}: '4.52 meters.' says 4.52, the value is 4.5" in text


# More that must not pass ------------------------------------------------------------------------------------


def _turn(index: int, **changes: Any) -> Poison:
    return lambda row: row["turns"][index].update(changes)


def _not_finite(row: dict[str, Any]) -> None:
    values = np.full((HEIGHT, WIDTH), 2500, dtype=np.float32)
    values[0, :2] = np.nan, np.inf
    row["depth"] = _depth_file(values)


CASES: tuple[tuple[str, Poison, str], ...] = (
    ("conversations", _turn(0, answer="No."), "answer_agrees"),
    ("conversations", _turn(2, answer="Region [0]."), "answer_agrees"),
    ("conversations", _turn(11, answer="At 2 o'clock."), "answer_agrees"),
    ("conversations", _turn(6, answer="It is wide."), "answer_agrees"),
    ("conversations", _turn(6, value=-1.0), "value_in_range"),
    ("conversations", _turn(6, value=float("nan")), "value_in_range"),
    ("conversations", _turn(11, value=13.0, answer="13 o'clock"), "value_in_range"),
    ("conversations", _turn(0, category="nearest_predicate"), "category_known"),
    ("conversations", _turn(0, unit="metres"), "unit_fits"),
    ("conversations", _turn(0, regions=[3]), "region_count"),
    ("conversations", _turn(0, regions=[3, 3]), "region_count"),
    ("conversations", _turn(0, question="Is <region0> left of <region2>?"), "region_mentions"),
    ("conversations", _turn(0, answer="Yes, left of Region [2]."), "region_mentions"),
    ("conversations", _turn(0, question=None), "question_present"),
    ("conversations", _turn(6, value=1.2, answer="1.20 meters"), "value_is_fact"),
    ("conversations", _turn(0, value=0.0, answer="No."), "value_is_fact"),
    ("conversations", lambda row: row.update(conversation_id="s4-0"), "conversation_unique"),
    ("conversations", lambda row: row.update(scene_id="nowhere"), "conversation_scene_known"),
    ("conversations", lambda row: row["regions"][0].update(id=8), "asked_region_known"),
    ("conversations", lambda row: row.update(turns=[]), "conversation_has_turns"),
    (
        "graphs",
        lambda row: row["nodes"][0]["perceived"].update(size=[1.0, -1.0, 1.0]),
        "node_perceived_box",
    ),
    (
        "graphs",
        lambda row: row["nodes"][0]["truth"].update(size=[1.0, float("inf"), 1.0]),
        "node_true_box",
    ),
    ("graphs", lambda row: row["nodes"][0].update(cluster_share=1.5), "node_cluster_share"),
    ("graphs", lambda row: row["nodes"][0].update(id=8), "node_region_known"),
    ("graphs", lambda row: row.update(rotation=[2.0] * 9), "graph_rotation"),
    ("perceived", lambda row: row.update(image=row["image"][:60]), "image_readable"),
    ("perceived", lambda row: row.update(width=31), "image_readable"),
    ("scenes", _not_finite, "depth_finite"),
    ("perceived", lambda row: row.update(depth=row["depth"][:50]), "depth_decodes"),
    (
        "perceived",
        lambda row: row.update(depth=encode_depth(np.zeros((HEIGHT, WIDTH)))),
        "depth_has_readings",
    ),
    ("perceived", lambda row: row.update(depth=encode_depth(np.ones((HEIGHT, 9)))), "depth_decodes"),
    ("perceived", lambda row: row.update(intrinsics=[0.0, 30.0, 1.0, 1.0]), "intrinsics_positive"),
    ("perceived", lambda row: row.update(gravity=[0.0, 0.5, 0.0]), "gravity_unit"),
    ("perceived", lambda row: row.update(depth_source=None), "provenance_named"),
    ("perceived", lambda row: row["regions"][0].update(id=5), "region_unique"),
    ("perceived", lambda row: row["regions"][0].update(bbox=[2.0, 4.0, 40.0, 20.0]), "region_box_inside"),
    ("perceived", lambda row: row["regions"][0].update(bbox=[2.0, 4.0, 2.0, 20.0]), "region_box_inside"),
    ("perceived", lambda row: row["regions"][0].update(rle=_mask((0, 0, 0, 0))), "region_mask_not_empty"),
    (
        "perceived",
        lambda row: row["regions"][0]["rle"].update(size=[WIDTH, HEIGHT]),
        "region_mask_decodes",
    ),
    ("scenes", lambda row: row["regions"][0]["cuboid"].update(size=[1.0, 0.0, 1.0]), "region_cuboid"),
    ("scenes", lambda row: row.update(scene_id="s4"), "scene_unique"),
    ("scenes", lambda row: row.update(dataset="other"), "scene_dataset"),
)
"""Table, what is done to one of its rows, and the rule that must notice."""


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A chain with every poison in a scene of its own."""
    folder = tmp_path_factory.mktemp("poisoned")
    poisons = {(table, f"s{i}"): poison for i, (table, poison, _) in enumerate(CASES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expectations, "render", lambda context: None)
        return broken(folder, poisons, scenes=len(CASES) + len(CASES) % 2)[1]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{i}-{CASES[i][2]}")
def test_each_rule_finds_its_row(poisoned: dict[str, Any], case: int) -> None:
    table, _, name = CASES[case]
    half = (len(CASES) + 1) // 2
    rule = next(rule for rule in poisoned["rules"] if rule["rule"] == name)
    assert not rule["passed"]
    places = [(example["file"], example["row"]) for example in rule["examples"]]
    assert (f"{table}/part-{case // half:05d}.parquet", case % half) in places


def test_rules_find_nothing_but_the_poison(poisoned: dict[str, Any]) -> None:
    for rule in poisoned["rules"]:
        cases = [case for case in CASES if case[2] == rule["rule"]]
        if rule["rule"] in ("gravity_unit", "region_count", "image_readable"):
            assert rule["failed"] == len(cases)


def test_changed_bytes_name_the_file(tmp_path: Path) -> None:
    source = make_chain(tmp_path)
    shard = tmp_path / "graphs" / "part-00001.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"graphs/part-00001\.parquet: content differs"):
        run(source, tmp_path / "report")


@pytest.mark.usefixtures("plain_report")
def test_a_table_made_again_breaks_the_lineage(tmp_path: Path) -> None:
    source = make_chain(tmp_path)
    other: Poison = lambda row: row["nodes"][0].update(kept_points=61)  # noqa: E731
    make_chain(tmp_path / "other", {("graphs", "s3"): other})
    for path in (tmp_path / "other" / "graphs").iterdir():
        (tmp_path / "graphs" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(
        SrgptError, match=r"lineage_unbroken.*: 1 of 4 tables\n\s+table conversations: made from"
    ):
        run(source, tmp_path / "report")


def test_dropped_objects_are_not_rejected_scenes(tmp_path: Path) -> None:
    writer = storage.TableWriter(str(tmp_path / "t"), "scenes", stage="ingest", dataset="toy", params={})
    ids = ["s0/1", "s0/2", "annotations/7", "s8", "s9"]
    rejected = [Rejected(name, "truncated", "why") for name in ids]
    storage.write_shard(writer.work, "part-00000.parquet", "scenes", [_scene("s0"), _scene("s1")], rejected)
    writer.commit(["part-00000.parquet"])
    with Store(tmp_path / "frames.db") as store:
        for part in frames.collect(frames.Frames(store), {"scenes": str(tmp_path / "t")}, lambda *args: None):
            assert len(part.scenes) == 2
        totals.add_tables(store, {"scenes": str(tmp_path / "t")})
        (row,) = store.rows("tables")
    assert (row["rejected"], row["rejected_share"]) == (2, 0.5)


def test_the_page_lists_dropped_objects_by_reason(good: tuple[Path, dict[str, Any]]) -> None:
    assert good[1]["objects"] == {}, "tables that count no objects"
    assert "no table of this chain counts objects" in report.page(good[1])
    objects = {
        "scenes": {"objects": 3, "dropped": {}},
        "graphs": {"objects": 58, "dropped": {"few-points": 45}},
    }
    text = re.sub(r"</?t[dr][^>]*>|\s+", " ", report.page({**good[1], "objects": objects}))
    assert re.search(r"graphs +few-points +45 +58", text)
    assert re.search(r"scenes +nothing +0 +3", text)


def test_the_demo_benchmark_is_judged_for_balance(root: Path) -> None:
    """250 scenes of 10 questions in 24 categories: about 100 in each, some fewer."""
    assert load(root / "params.yaml").validate_.min_balance_rows == ValidateParams().min_balance_rows == 40


@pytest.mark.usefixtures("plain_report")
def test_a_report_is_made_again_and_replaces_nothing_else(tmp_path: Path) -> None:
    source = make_chain(tmp_path)
    for _ in range(2):
        assert run(source, tmp_path / "report")["passed"]
    for place in ("scenes", "conversations", "."):
        with pytest.raises(InputError, match="overlaps with the input"):
            run(source, tmp_path / place)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="was not written as a folder by srgpt"):
        run(source, tmp_path / "home")


@pytest.mark.omni3d_mini
@pytest.mark.usefixtures("plain_report")
def test_photographs_pass_through_the_whole_chain(omni3d_mini: Path, tmp_path: Path) -> None:
    own = {"source": "omni3d", "url": str(omni3d_mini)}
    params = build({"ingest": own, "ask": {"truth": "cuboids"}, "engine": {"workers": 1}})
    urls = {role: str(tmp_path / role) for role in STAGES}
    ingest.run(params, source=None, out=urls["scenes"], dataset="mini")
    perceive.run(params, source=urls["scenes"], out=urls["perceived"])
    lifted = lift.run(params, source=urls["perceived"], out=urls["graphs"])
    asked = ask.run(params, source=urls["graphs"], out=urls["conversations"])
    summary = validate.run(params, source=urls["conversations"], out=str(tmp_path / "report"))
    assert summary["passed"]
    assert summary["rows"]["scenes"] == summary["rows"]["perceived"] == 4
    assert summary["objects"]["scenes"]["objects"] == 58 + sum(summary["rejected"]["scenes"].values())
    assert summary["objects"]["graphs"] == {"objects": 58, "dropped": lifted.dropped}
    assert asked.statistics["turns"] >= 10
    text = (tmp_path / "report" / "index.html").read_text()
    assert all(reason in text for reason in lifted.dropped)
    assert 'id="curves"' in text
    assert summary["curves"]["objects"] > 5
    assert {row["cause"] for row in summary["quality"]["causes"]} >= {
        "all",
        "sparse depth (below half of the mask)",
    }


@pytest.mark.usefixtures("plain_report")
def test_thresholds_of_the_whole_dataset(tmp_path: Path) -> None:
    settings = ("validate.min_balance_rows=6", "validate.min_rows=7")
    text, summary = broken(tmp_path, {}, *settings)
    assert failed_rules(summary) == {"answers_balanced", "enough_rows"}
    assert "category left_predicate: 1.0" in text
    assert "table conversations: 6" in text


@pytest.mark.usefixtures("plain_report")
def test_bad_perception_fails_training_data_once_there_is_enough_of_it(tmp_path: Path) -> None:
    poisons: dict[tuple[str, str], Poison] = {
        ("graphs", f"s{i}"): lambda row: row["nodes"][0].update(truth={**LEFT, "center": [9.0, 0.0, 4.0]})
        for i in range(30)
    }
    text, summary = broken(tmp_path, poisons, "validate.min_balance_rows=200", scenes=60)
    assert failed_rules(summary) == {"labels_accurate"}
    assert "fact left_right: 0.5" in text


# Chains of other kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.usefixtures("plain_report")
def test_imported_conversations_are_judged_by_what_there_is(tmp_path: Path, pictures: bool) -> None:
    rows = [osd_row(i) for i in range(40)]
    images, depth = write_pictures(tmp_path, [row["filename"] for row in rows]) if pictures else (None, None)
    url = write_rows(tmp_path / "rows.json", rows)
    importing.run(importing.Source(url, "osd", "toy", images, depth), str(tmp_path / "in"))
    summary = run(str(tmp_path / "in" / "conversations"), tmp_path / "report")
    assert summary["passed"]
    assert summary["rows"] == {"scenes": 40, "conversations": 40}
    checked = {rule["rule"]: rule["checked"] for rule in summary["rules"]}
    assert checked["graph_unique"] == checked["node_unique"] == 0
    assert checked["answer_agrees"] == checked["asked_region_mask_decodes"] + 40
    assert summary["truths"] == ["imported"]
    assert [step["stage"] for step in summary["funnel"]["pictures"]] == ["import", "import"]
    assert not summary["quality"]["available"]
    text = (tmp_path / "report" / "index.html").read_text()
    assert ('<article class="scene"' in text) is pictures


@pytest.mark.usefixtures("plain_report")
def test_a_picture_may_come_again_in_another_shard_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 4)
    monkeypatch.setattr(importing, "BATCH", 2)
    rows = [osd_row(i % 5) for i in range(40)]
    images, depth = write_pictures(tmp_path, [row["filename"] for row in rows[:5]])
    url = write_rows(tmp_path / "rows.json", rows)
    importing.run(importing.Source(url, "osd", "toy", images, depth), str(tmp_path / "in"))
    summary = run(str(tmp_path / "in" / "conversations"), tmp_path / "report")
    assert summary["passed"]
    assert summary["rows"] == {"scenes": 40, "conversations": 40}


@pytest.mark.usefixtures("plain_report")
def test_boxes_of_a_picture_of_unknown_size_may_end_anywhere(tmp_path: Path) -> None:
    """Without pictures and masks nothing tells the size of a picture; a mask of another row may tell it later."""
    rows = [{k: v for k, v in osd_row(i).items() if k != "rle"} for i in range(40)]
    rows.append(osd_row(39))
    url = write_rows(tmp_path / "rows.json", rows)
    importing.run(importing.Source(url, "osd", "toy"), str(tmp_path / "in"))
    summary = run(str(tmp_path / "in" / "conversations"), tmp_path / "report")
    assert summary["passed"]
    checked = {rule["rule"]: rule["checked"] for rule in summary["rules"]}
    assert checked["region_box_inside"] == 80 + 2


@pytest.mark.usefixtures("plain_report")
def test_a_box_without_area_fails_an_import_without_pictures(tmp_path: Path) -> None:
    rows = [{k: v for k, v in osd_row(i).items() if k != "rle"} for i in range(40)]
    rows[7]["bbox"] = [[5.0, 4.0, 5.0, 16.0] for _ in rows[7]["bbox"]]
    url = write_rows(tmp_path / "rows.json", rows)
    importing.run(importing.Source(url, "osd", "toy"), str(tmp_path / "in"))
    with pytest.raises(SrgptError, match=r"(?s)asked_region_box_inside .* has no area"):
        run(str(tmp_path / "in" / "conversations"), tmp_path / "report")


@pytest.mark.usefixtures("plain_report")
def test_free_text_of_any_category_passes(tmp_path: Path) -> None:
    url = write_rows(tmp_path / "rows.json", [llava_row(i) for i in range(6)])
    importing.run(importing.Source(url, "llava", "toy"), str(tmp_path / "in"))
    summary = run(str(tmp_path / "in" / "conversations"), tmp_path / "report")
    assert summary["passed"]
    assert summary["blind"] == {"categories": [], "text": 12}


def _without_regions(row: dict[str, Any]) -> None:
    row["regions"] = []


@pytest.mark.usefixtures("plain_report")
def test_a_source_that_knows_no_regions_is_no_fault(tmp_path: Path) -> None:
    """Photographs come without regions; perceive detects them."""
    poisons: dict[tuple[str, str], Poison] = {("scenes", f"s{i}"): _without_regions for i in range(6)}
    summary = run(make_chain(tmp_path, poisons), tmp_path / "report")
    assert summary["passed"]
    objects = {step["stage"]: step for step in summary["funnel"]["objects"]}
    assert (objects["ingest"]["kept"], objects["perceive"]["kept"], objects["lift"]["kept"]) == (0, 12, 12)


@pytest.mark.usefixtures("plain_report")
def test_questions_beyond_the_benchmark_pass(tmp_path: Path) -> None:
    more: Poison = lambda row: row["turns"].append(  # noqa: E731
        {
            "question": "Which is the tallest of <region0> and <region1>?", "answer": "Region [1].",
            "category": "tallest", "regions": [3, 5], "value": 1.0, "unit": "region", "sigma": 0.01,
        }
    )  # fmt: skip
    summary = run(make_chain(tmp_path, {("conversations", "s2"): more}), tmp_path / "report")
    assert summary["passed"]
    assert summary["distributions"]["questions"]["tallest"] == 1


@pytest.mark.usefixtures("plain_report")
def test_facts_by_other_definitions_are_not_held_against_boxes(tmp_path: Path) -> None:
    """SpatialRGPT measures distances between point clouds, so boxes cannot confirm them."""
    source = make_chain(tmp_path, {("conversations", "s3"): _turn(8, value=4.2, answer="4.20 meters.")})
    _ask_as_reference(tmp_path)
    assert run(source, tmp_path / "report")["passed"]


@pytest.mark.usefixtures("plain_report")
def test_the_bias_of_the_reference_is_a_warning(tmp_path: Path) -> None:
    """The larger mask comes first there, on purpose."""
    source = make_chain(tmp_path)
    _ask_as_reference(tmp_path)
    summary = run(source, tmp_path / "report", "validate.min_balance_rows=6")
    assert summary["passed"]
    assert warned_rules(summary) == {"answers_balanced"}


def _ask_as_reference(folder: Path) -> None:
    path = folder / "conversations" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["params"] = {"ask": {"compat": "reference"}}
    path.write_text(json.dumps(manifest))


# The page, and MLflow ------------------------------------------------------------------------------------------


def test_the_page_shows_each_part(good: tuple[Path, dict[str, Any]]) -> None:
    text = (good[0] / "report" / "index.html").read_text()
    for part in ("funnel", "gallery", "contents", "questions", "quality", "rules"):
        assert f'id="{part}"' in text
    assert text.count('<article class="scene"') == 4
    assert 'class="perceived"' in text
    assert 'class="truth"' in text
    assert "http://" not in text
    assert "https://" not in text
    assert len(text) < 5_000_000


def test_figures_go_to_mlflow_under_the_dataset_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(expectations, "render", lambda context: None)
    monkeypatch.setattr(validate, "_track", TRACK)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    summary = run(make_chain(tmp_path), tmp_path / "report", f"tracking.uri={uri}")
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("srgpt").experiment_id])
    assert found.info.run_name == "curation toy"
    assert found.info.status == "FINISHED"
    assert found.data.tags["srgpt.stage"] == "validate"
    assert found.data.tags["srgpt.data.toy"] == summary["fingerprint"][:16]
    assert found.data.metrics == pytest.approx(report.metrics(summary))
    assert found.data.metrics["questions"] == 6 * len(TURNS)
    assert {a.path for a in client.list_artifacts(found.info.run_id)} == {"index.html", "summary.json"}


@pytest.mark.usefixtures("plain_report")
def test_a_tracking_server_that_is_away_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(validate, "_track", TRACK)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run(make_chain(tmp_path), tmp_path / "report")["passed"]
    assert (tmp_path / "report" / "index.html").exists()
    assert (
        "toy: the report is not in MLflow: MLflow tracking server http://127.0.0.1:9 does not answer"
        in caplog.text
    )


@pytest.mark.usefixtures("plain_report")
def test_a_warning_does_not_fail_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sixty scenes whose answers are always the same: known without a look."""
    settings = ("validate.min_balance_rows=40", "validate.yes_share=[0, 1]")
    summary = run(make_chain(tmp_path, scenes=60), tmp_path / "report", *settings)
    assert summary["passed"]
    assert warned_rules(summary) == {"not_answerable_blind"}
    assert "not_answerable_blind" in caplog.text
    assert "warning" in (tmp_path / "report" / "index.html").read_text()


def test_only_conversations_are_validated(tmp_path: Path) -> None:
    make_chain(tmp_path)
    with pytest.raises(InputError, match="conversations was expected"):
        run(str(tmp_path / "graphs"), tmp_path / "report")


def test_questions_about_imported_pictures_have_their_scenes(tmp_path: Path) -> None:
    above: dict[str, str] = {}
    urls = {}
    made = (("scenes", "import"), ("scenes", "perceive"), ("graphs", "lift"), ("conversations", "ask"))
    for table, stage in made:
        urls[stage] = str(tmp_path / stage)
        writer = storage.TableWriter(urls[stage], table, stage=stage, dataset="d", params={}, inputs=above)
        storage.write_shard(writer.work, storage.shard_name(0), table, [])
        writer.commit([storage.shard_name(0)])
        above = {table: urls[stage]}
    assert list(validate.chain(urls["ask"])) == ["scenes", "perceived", "graphs", "conversations"]
    assert validate.chain(urls["ask"])["scenes"] == urls["import"]
