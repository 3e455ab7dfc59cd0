"""The report: metrics.json, the page, the plots, the table of a terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from srgpt.errors import InputError
from srgpt.evaluation.controls import VARIANTS, Variants, main_inputs, variants_of
from srgpt.evaluation.gallery import choose, with_chips
from srgpt.evaluation.grading import grade
from srgpt.evaluation.report import Evaluation, summary_table, write_report
from srgpt.model.drawing import colour_of, draw_regions
from srgpt.records import GROUP_OF, Prediction
from srgpt.storage import trace
from tests.evaluation.tables import make_conversation, make_scene, prediction, write_tables

SCENES = [make_scene(i) for i in range(6)]
CONVERSATIONS = [make_conversation(s, i) for i, s in enumerate(SCENES)]


def predictions(inputs: str, right_of_ten: int) -> list[Prediction]:
    found = []
    for c in CONVERSATIONS:
        for k, t in enumerate(c.turns):
            right = (7 * len(found)) % 10 < right_of_ten
            text = t.answer if right else "<script>alert(1)</script>"
            g = grade(text, t.category, t.value)
            found.append(
                Prediction(
                    c.dataset, c.scene_id, c.conversation_id, k, t.category, t.question, t.answer, text,
                    t.value, t.unit, g.predicted, g.success, g.error, inputs, t.regions,  # type: ignore[arg-type]
                )
            )  # fmt: skip
    return found


ALL = Variants(("rgbd", "rgb", "blind"))


def evaluation(variants: Variants = ALL, rejected: int = 0) -> Evaluation:
    skill = {"rgbd": 10, "rgb": 7, "boxes": 6, "blind": 4}
    return Evaluation(
        "bench",
        "ab" * 32,
        {"commit": "abc"},
        variants,
        {i: predictions(i, skill[i]) for i in variants.inputs},
        rejected,
    )


def report(folder: Path, found: Evaluation, examples: int = 12) -> dict:
    folder.mkdir(exist_ok=True)
    return write_report(folder, found, examples=examples, conversations=CONVERSATIONS, scenes=SCENES)


def test_metrics_are_flat_and_named_alike_for_all_inputs(tmp_path: Path) -> None:
    metrics = report(tmp_path, evaluation())
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert set(metrics) == {"rgbd", "rgb", "blind", "comparisons"}
    assert metrics["rgbd"]["qualitative_micro"] == 1.0
    assert metrics["rgb"]["qualitative_micro"] < 1.0
    assert metrics["rgbd"].keys() >= metrics["rgb"].keys() >= {"distance_success", "left_right_accuracy"}
    assert metrics["comparisons"]["blind"]["qualitative"]["p_value"] < 0.05
    assert main_inputs(metrics) == "rgbd"


def test_the_same_figures_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        report(tmp_path / name, evaluation())
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert {str(f) for f in files} == {"index.html", "metrics.json", "plots/lengths.svg", "plots/scores.svg"}
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_page_stands_alone_and_escapes_what_models_say(tmp_path: Path) -> None:
    report(tmp_path, evaluation(rejected=3))
    page = (tmp_path / "index.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("<article") == 12
    assert "3 conversation(s) could not be asked" in page
    assert "RGB only" in page
    assert "Region 0</span>" in page


def test_no_examples_and_few_groups_still_make_a_page(tmp_path: Path) -> None:
    only = [p for p in predictions("rgb", 5) if p.category == "left_choice"]
    found = Evaluation(
        "bench", "ab" * 32, {}, Variants(("rgb", "blind"), "no depth here"), {"rgb": only, "blind": only}
    )
    metrics = report(tmp_path, found, examples=0)
    page = (tmp_path / "index.html").read_text()
    assert "<article" not in page
    assert "no depth here" in page
    assert main_inputs(metrics) == "rgb"
    text = render(metrics)
    assert "left / right" in text
    assert "direction" not in text


def render(metrics: dict, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(metrics))
    return console.export_text()


def test_the_summary_shows_the_model_beside_its_controls() -> None:
    text = render(evaluation().metrics())
    row = next(line for line in text.splitlines() if line.strip().startswith("qualitative"))
    assert "100.0" in row
    assert "*" in row
    assert "behind / front" in text
    assert "blind" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_summary_fits(width: int) -> None:
    metrics = evaluation().metrics()
    metrics["rgbd"]["qualitative_count"] = 5000
    text = render(metrics, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_examples_are_spread_over_the_groups() -> None:
    chosen = choose(predictions("rgbd", 10), 12)
    assert len({GROUP_OF[p.category] for p in chosen}) == 12
    assert chosen == choose(list(reversed(predictions("rgbd", 10))), 12)
    assert choose([], 5) == []
    assert len(choose([prediction("left_choice", success=True)], 5)) == 1


def test_regions_are_drawn_where_they_are() -> None:
    scene, conversation = SCENES[0], CONVERSATIONS[0]
    picture = np.asarray(draw_regions(scene, conversation.regions, width=128))
    assert picture.shape == (128, 128, 3)
    plain = np.asarray(draw_regions(scene, (), width=128))
    changed = (picture != plain).any(axis=2)
    assert changed.any()
    for index, region in enumerate(conversation.regions):
        x1, y1, _, y2 = (int(v * 4) for v in region.bbox)
        colour = np.frombuffer(bytes.fromhex(colour_of(index)[1:]), np.uint8)
        edge = picture[(y1 + y2) // 2, x1 : x1 + 4]
        assert (np.abs(edge.astype(int) - colour) < 40).all(axis=1).any()
    # nothing else is touched but the tags above the regions
    assert not changed[:, 60:70].any()


def test_chips_escape_everything_else() -> None:
    assert str(with_chips("a < b & <region1>")).startswith("a &lt; b &amp; <span")
    assert str(with_chips("Region [0] <b>")).endswith("&lt;b&gt;")


def test_depth_decides_the_inputs(tmp_path: Path) -> None:
    with_depth, without = write_tables(tmp_path / "a"), write_tables(tmp_path / "b", depth=False)
    assert variants_of(trace(with_depth, "perceive"), "metric") == Variants(VARIANTS)
    found = variants_of(trace(without, "perceive"), "metric")
    assert (found.main, found.controls) == ("rgb", ("boxes", "blind"))
    assert "6 of 6 scenes have no depth" in found.note
    with pytest.raises(InputError, match="6 of 6 scenes have no depth, and the model"):
        variants_of(trace(without, "perceive"), "metric", ("rgbd",))
    with pytest.raises(InputError, match="the model has learnt rgbd, none of which it can be given"):
        variants_of(trace(with_depth, "perceive"), "none", ("rgbd",))
    assert variants_of(trace(with_depth, "perceive"), "none", ("rgbd", "rgb", "blind")).inputs == (
        "rgb",
        "blind",
    )
