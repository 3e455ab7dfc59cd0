from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from srgpt.errors import InputError, SrgptError
from srgpt.export import bundle
from srgpt.export.parity import Compared, Parity, logit_error
from srgpt.export.questions import read_smoke, sample
from srgpt.export.repository import RUNTIME
from srgpt.model.modeling import PIXEL_INPUTS
from srgpt.model.processing import Question
from srgpt.serving.bundle import bundle_hash, read_manifest, verify
from srgpt.stages import export as stage
from tests.export import tiny
from tests.model.tiny import make_tiny


def test_the_export_is_whole_and_proven() -> None:
    folder = tiny.export()
    report = json.loads((folder / "parity.json").read_text())
    assert report["passed"]
    assert report["max_logit_error"] < 1e-3
    assert (report["same_answers"], report["questions"]) == (6, 6)
    manifest = read_manifest(folder / "onnx")
    version = folder / "triton" / "srgpt" / "1"
    served = read_manifest(version)
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["export_hash"] == report["export_hash"] == bundle_hash(served)
    assert lineage["commit"] == "abc123"
    decoder = manifest["files"]["decoder/model.onnx"]
    assert decoder["inputs"]["inputs_embeds"] == ["batch_size", "sequence_length", 32]
    assert manifest["files"]["tower.onnx"]["outputs"] == {"features": ["images", 16, 16]}
    assert {p.relative_to(version / "srgpt").as_posix() for p in (version / "srgpt").rglob("*.py")} == set(
        RUNTIME
    )
    files = {p.relative_to(version).as_posix() for p in version.rglob("*") if p.is_file()}
    assert set(served["files"]) == files - {"manifest.json"}
    verify(version, served)
    assert not (folder.parent / f"{folder.name}.parity.json").exists()


def test_dvc_exports_again_when_the_shipped_runtime_changes(root: Path) -> None:
    dependencies = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["export"]["deps"]
    for name in RUNTIME:
        assert any(f"srgpt/{name}" == d or f"srgpt/{name}".startswith(f"{d}/") for d in dependencies), name


def test_smoke_questions_are_the_benchmarks_own() -> None:
    asked = sample(tiny.benchmark(), 6)
    found = read_smoke(tiny.export() / "smoke", 6)
    assert [q.request.image for q in found] == [a.scene.image for a in asked]
    assert [(q.conversation_id, q.turn) for q in found] == [
        (a.conversation.conversation_id, a.turn) for a in asked
    ]
    assert found[-1].request.depth is None
    assert len(read_smoke(tiny.export() / "smoke", 3)) == 3


def test_samples_are_spread_over_conversations_and_turns() -> None:
    assert [(a.scene.scene_id, a.turn) for a in sample(tiny.benchmark(), 4)] == [
        ("s0", 0), ("s1", 1), ("s2", 2), ("s3", 0),
    ]  # fmt: skip
    everything = {(a.scene.scene_id, a.turn) for a in sample(tiny.benchmark(), 50)}
    assert everything == {(f"s{s}", t) for s in range(4) for t in range(3)}


def test_a_wrong_graph_fails_the_stage_and_leaves_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connector's weights are disturbed on their way to ONNX."""
    real = bundle.export_towers

    def disturbed(model: object, folder: Path) -> None:
        projector = model.mm_projector.layers[2].weight  # type: ignore[attr-defined]
        kept = projector.data.clone()
        projector.data *= -3
        real(model, folder)  # type: ignore[arg-type]
        projector.data = kept

    monkeypatch.setattr(bundle, "export_towers", disturbed)
    out = tmp_path / "export"
    with pytest.raises(
        SrgptError, match=r"no parity with PyTorch: max relative logit error .*export\.parity\.json"
    ):
        stage.run(tiny.params(), source=str(tiny.checkpoint()), benchmark=tiny.benchmark(), out=str(out))
    assert not out.exists()
    report = json.loads((tmp_path / "export.parity.json").read_text())
    assert not report["passed"]
    assert report["max_logit_error"] > 1e-3


def test_an_answer_with_a_placeholder_in_it_is_compared_like_any_other(tmp_path: Path) -> None:
    """An untrained model may write ``<mask>``; no region belongs to that."""
    model, processor = make_tiny(params=tiny.MODEL)
    (asked,) = sample(tiny.benchmark(), 1)
    picture = processor.picture_of(asked.scene, asked.conversation)
    turn = asked.conversation.turns[asked.turn]
    batch = processor.batch([Question(turn.question, turn.regions, picture)])
    pixels = {name: value for name, value in batch.items() if name in PIXEL_INPUTS}
    with torch.no_grad():
        hidden = model.llm.base_model(inputs_embeds=model.embed(batch["input_ids"], **pixels))
        model.llm.lm_head.weight[processor.mask_id] = hidden.last_hidden_state[0, -1]
    written = model.generate(**batch, max_new_tokens=8)[0, batch["input_ids"].shape[1] :]
    assert processor.mask_id in written
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "lineage.json").write_text("{}")
    figures = stage.run(
        tiny.params(export={"parity_questions": 1}),
        source=str(tmp_path / "model"),
        benchmark=tiny.benchmark(),
        out=str(tmp_path / "export"),
    )
    assert figures["passed"]
    assert figures["same_answers"] == 1


@pytest.mark.slow
def test_int4_exports_and_answers(tmp_path: Path) -> None:
    """A trained model, since random weights lose all meaning in four bits."""
    loose = tiny.params(
        export={
            "precision": "int4",
            "parity_questions": 12,
            "max_logit_error": 0.5,
            "min_parity_agreement": 0.75,
        }
    )
    out = tmp_path / "export"
    stage.run(loose, source=str(tiny.trained_checkpoint()), benchmark=tiny.benchmark(), out=str(out))
    report = json.loads((out / "parity.json").read_text())
    assert report["questions"] == 12
    assert min(row["logit_error"] for row in report["rows"]) > 1e-4, "not exported in four bits"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    model, out = tmp_path / "model", str(tmp_path / "export")
    model.mkdir()
    with pytest.raises(InputError, match="not known what the model was made from"):
        stage.run(tiny.params(), source=str(model), benchmark=tiny.benchmark(), out=out)
    (model / "lineage.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json, processor_config\.json missing"):
        stage.run(tiny.params(), source=str(model), benchmark=tiny.benchmark(), out=out)


def test_logit_error_by_hand() -> None:
    expected = np.array([[1.0, -4.0], [2.0, 1.0]])
    assert logit_error(expected, expected + np.array([[0.0, 0.2], [0.0, 0.0]])) == pytest.approx(0.05)
    assert logit_error(expected, expected[:1]) == math.inf
    assert math.isnan(logit_error(expected, expected * np.nan))


def test_parity_bounds() -> None:
    def judged(error: float, answer: str, agreement: float = 1.0) -> Parity:
        rows = (Compared("q", "c", "rgb", 0.0, "a", "a"), Compared("q", "c", "rgb", error, "a", answer))
        return Parity(rows, 1e-3, agreement)

    assert judged(1e-3, "a").passed
    assert not judged(1.1e-3, "a").passed
    assert not judged(0, "b").passed
    assert judged(0, "b", agreement=0.5).passed
    assert not judged(math.nan, "a").passed
    with pytest.raises(SrgptError, match="For 'q' PyTorch says 'a', the export 'b'"):
        judged(0, "b").check("parity.json")
