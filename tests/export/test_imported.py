"""An imported checkpoint, whose vocabulary does not hold <image>, goes through the export like a model of ours."""

import json
from pathlib import Path

import pytest

from srgpt.model.loading import load_model
from srgpt.model.vila import convert
from srgpt.serving.engine import Engine
from srgpt.stages.export import run
from tests.export.tiny import benchmark, params
from tests.model.released import make_released


@pytest.mark.slow
def test_an_imported_checkpoint_is_exported_with_parity(tmp_path: Path) -> None:
    make_released(tmp_path / "released")
    convert(str(tmp_path / "released"), str(tmp_path / "ours"))
    figures = run(
        params(), source=str(tmp_path / "ours"), benchmark=benchmark(), out=str(tmp_path / "export")
    )
    assert figures["max_logit_error"] < 1e-4
    assert json.loads((tmp_path / "export" / "lineage.json").read_text())["profile"] == "imported"
    engine = Engine(tmp_path / "export" / "onnx", device="cpu", max_new_tokens=4)
    model, processor = load_model(tmp_path / "ours")
    assert engine.decoder.eos == set(model.generation_config.eos_token_id)
    rows = model.get_input_embeddings().num_embeddings
    assert processor.image_id == rows == len(engine.decoder.embeddings)
