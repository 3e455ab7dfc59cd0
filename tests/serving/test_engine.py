from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from srgpt.errors import InputError, SrgptError
from srgpt.export.questions import read_smoke
from srgpt.serving.bundle import open_bundle
from srgpt.serving.decoder import Decoder
from srgpt.serving.engine import Engine
from srgpt.serving.protocol import Answer, Request, RequestError
from tests.conftest import ROOT
from tests.export import tiny


@pytest.fixture(scope="module")
def folder() -> Path:
    return tiny.export() / "onnx"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine(folder, threads=1, max_new_tokens=8)


def requests() -> list[Request]:
    return [q.request for q in read_smoke(tiny.export() / "smoke", 6)]


def texts(answers: list[Answer | RequestError]) -> list[str]:
    return [a.text if isinstance(a, Answer) else f"error: {a}" for a in answers]


def test_a_batch_answers_as_one_by_one(engine: Engine) -> None:
    alone = [engine.ask(r).text for r in requests()]
    assert texts(engine.answer(requests())) == alone
    assert alone == [q.answer for q in read_smoke(tiny.export() / "smoke", 6)]


def test_batched_decoding_equals_full_forward_passes(folder: Path) -> None:
    """Prompts of different lengths, decoded together, against each one's own uncached forward pass."""
    decoder = Decoder(open_bundle(folder, threads=1))
    decoder.eos = frozenset()
    rng = np.random.default_rng(0)
    prompts = [rng.normal(size=(n, 32)).astype(np.float32) for n in (3, 17, 9, 1)]
    together = decoder.generate(prompts, 12)
    for prompt, tokens in zip(prompts, together, strict=True):
        assert len(tokens) == 12
        whole = np.concatenate([prompt, decoder.embed(np.array(tokens[:-1]))])
        assert decoder.logits(whole)[len(prompt) - 1 :].argmax(-1).tolist() == tokens
        assert decoder.generate([prompt], 12) == [tokens]
    assert len({tuple(t) for t in together}) > 1


def test_an_end_token_ends_its_row_only(folder: Path) -> None:
    decoder = Decoder(open_bundle(folder, threads=1))
    decoder.eos = frozenset()
    rng = np.random.default_rng(1)
    prompts = [rng.normal(size=(n, 32)).astype(np.float32) for n in (5, 8)]
    first, second = decoder.generate(prompts, 6)
    ending = next(t for t in first if t not in second)
    decoder.eos = frozenset([ending])
    assert decoder.generate(prompts, 6) == [first[: first.index(ending)], second]


def test_one_bad_request_does_not_touch_its_batch(engine: Engine) -> None:
    good = requests()
    bad = Request(b"not an image", "What is <region0>?", good[0].regions)
    long = Request(good[0].image, "word " * 400)
    answers = engine.answer([good[0], bad, good[1], long])
    assert [type(a) for a in answers] == [Answer, RequestError, Answer, RequestError]
    assert "tokens, the model takes" in str(answers[3])
    assert [texts(answers)[i] for i in (0, 2)] == [engine.ask(r).text for r in good[:2]]


def test_more_requests_than_a_batch_holds(folder: Path) -> None:
    small = Engine(folder, threads=1, max_batch=2, max_new_tokens=8, cache_bytes=0)
    many = requests() * 2
    assert texts(small.answer(many)) == [small.ask(r).text for r in many]


def test_an_image_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(folder, threads=1, max_new_tokens=2)
    sizes = []

    class Counting:
        def __init__(self, session: object) -> None:
            self.session = session

        def run(self, names: object, inputs: dict[str, np.ndarray]) -> object:
            sizes.append(len(inputs["pixels"]))
            return self.session.run(names, inputs)  # type: ignore[attr-defined]

    monkeypatch.setattr(engine, "_tower", Counting(engine._tower))
    same = [r for r in requests() if r.image == requests()[0].image]
    assert len(same) > 1
    engine.answer([*same, *same])
    engine.ask(same[0])
    assert sizes == [1]


@pytest.mark.parametrize(
    "name", ["tower.onnx", "decoder/model.onnx.data", "embeddings.npy", "tokenizer.json"]
)
def test_changed_files_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "onnx"
    shutil.copytree(folder, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: content differs"):
        Engine(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        Engine(copy)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [("{", "not JSON"), ("[]", "not a manifest"), ('{"files": {}, "format": 99}', "layout 99")],
)
def test_broken_manifests(manifest: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an exported model"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=message):
        open_bundle(tmp_path)


def test_cuda_is_not_replaced_by_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SrgptError, match="has no CUDA"):
        open_bundle(folder, device="cuda")
    with pytest.raises(InputError, match="device 'tpu'"):
        open_bundle(folder, device="tpu")


@pytest.mark.triton
def test_the_shipped_runtime_stands_alone(folder: Path) -> None:
    """In the server's environment (numpy 1, no torch, nothing of ours installed) answers are the same."""
    python = ROOT / ".venv-triton" / "bin" / "python"
    if not python.exists():
        pytest.skip("the Triton environment is not here (`make triton`)")
    version = tiny.export() / "triton" / "srgpt" / "1"
    script = f"""
        import json, sys
        sys.path.insert(0, {str(version)!r})
        from pathlib import Path
        from srgpt.serving.engine import Engine
        from srgpt.serving.protocol import AskedArea, Request
        import numpy, srgpt
        smoke = Path({str(tiny.export() / "smoke")!r})
        engine = Engine(Path({str(version)!r}) / "onnx", threads=1, max_new_tokens=8)
        answers = []
        for row in json.loads((smoke / "questions.json").read_text()):
            areas = tuple(AskedArea(None, r["rle"]) for r in row["regions"])
            depth = (smoke / row["depth"]).read_bytes() if row["depth"] else None
            image = (smoke / row["image"]).read_bytes()
            answers.append(engine.ask(Request(image, row["question"], areas, depth)).text)
        unwanted = sorted(m for m in ("torch", "transformers", "pyarrow", "pycocotools") if m in sys.modules)
        print(json.dumps([numpy.__version__, srgpt.__file__, unwanted, answers]))
    """
    done = subprocess.run(
        [str(python), "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numpy_version, home, unwanted, answers = json.loads(done.stdout)
    assert numpy_version.startswith("1.")
    assert home.startswith(str(version))
    assert unwanted == []
    assert answers == [q.answer for q in read_smoke(tiny.export() / "smoke", 6)]
