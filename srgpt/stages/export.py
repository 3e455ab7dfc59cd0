"""``export``: a model folder -> ONNX graphs, parity report, Triton model repository.

exports/srgpt/
  onnx/           graphs, tokenizer, settings, manifest.json with every file's hash
  parity.json     logits and answers against PyTorch, question by question
  smoke/          the parity questions with their answers: what a server is tried with
  triton/srgpt/   the model as Triton loads it; the hash of its manifest identifies the export
  lineage.json    what it was made from
"""

from __future__ import annotations

from typing import Any

from srgpt.errors import InputError, SrgptError
from srgpt.export import LINEAGE, PARITY
from srgpt.export.bundle import write_bundle
from srgpt.export.parity import Parity, compare
from srgpt.export.questions import AskedTurn, SmokeQuestion, sample, write_smoke
from srgpt.export.repository import write_model
from srgpt.model.loading import load_model
from srgpt.params import Params
from srgpt.progress import console
from srgpt.serving.bundle import bundle_hash
from srgpt.serving.engine import Engine
from srgpt.storage import (
    exists,
    join,
    local_copy,
    read_json,
    read_manifest,
    remove,
    staged_folder,
    write_json,
)


def run(params: Params, *, source: str, benchmark: str, out: str) -> dict[str, Any]:
    """Export the model at ``source``, proven on the questions at ``benchmark``; return the parity figures.

    Raises :class:`SrgptError` where parity fails; the report then lies beside ``out``: ``NAME.parity.json``.
    """
    asked = sample(benchmark, params.export.parity_questions)
    lineage = _lineage(source, benchmark)
    report = f"{out.rstrip('/')}.parity.json"
    with staged_folder(out, reads=[source, benchmark]) as work, local_copy(source) as folder:
        model, processor = load_model(folder)
        tokens = params.evaluate.max_new_tokens
        write_bundle(model, processor, work / "onnx", params.export.precision)
        manifest = write_model(
            work / "onnx",
            work / "triton" / params.promote.model_name,
            params.serve,
            max_new_tokens=tokens,
        )
        identity = bundle_hash(manifest)
        engine = Engine(work / "onnx", device=manifest["device"], max_new_tokens=tokens)
        parity = compare(model, processor, engine, asked, params.export)
        figures = {**parity.to_json(), "export_hash": identity}
        write_json(report, figures)
        parity.check(report)
        write_json(str(work / PARITY), figures)
        write_json(str(work / LINEAGE), {**lineage, "export_hash": identity})
        write_smoke(_smoke(asked, parity), work / "smoke")
    remove(report)
    console.print(
        f"export: parity on {len(parity.rows)} questions: max relative logit error "
        f"{parity.max_logit_error:.2g}, {sum(r.same for r in parity.rows)} same answers"
    )
    return {k: v for k, v in figures.items() if k != "rows"}


def _lineage(source: str, benchmark: str) -> dict[str, Any]:
    path = join(source, LINEAGE)
    if not exists(path):
        raise InputError(
            f"{source}: no {LINEAGE} here, so it is not known what the model was made from. Train again."
        )
    lineage = read_json(path)
    if not isinstance(lineage, dict):
        raise SrgptError(f"{path}: an object was expected")
    return {**lineage, "benchmark": read_manifest(benchmark).fingerprint}


def _smoke(asked: list[AskedTurn], parity: Parity) -> list[SmokeQuestion]:
    return [
        SmokeQuestion(
            a.request(), row.category, row.expected, a.conversation.conversation_id, a.turn, row.inputs
        )
        for a, row in zip(asked, parity.rows, strict=True)
    ]
