"""Time and peak memory of ``srgpt convert`` on a checkpoint of the released 8B model's shapes, there and back.

The checkpoint is made up: true names, shapes, types and token ids, weights of random bytes that differ from tensor to
tensor. It is written to a temporary folder (17 GB, and as much again for the result), converted by a process of its
own, and checked: the number of tensors, and the hash of every tenth. All is removed in the end.
Run it on a quiet machine: python benchmarks/convert.py [folder for temporary files]
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from srgpt.model import SrgptConfig
from srgpt.model.vila import convert
from srgpt.model.vila.settings import PARTS, REQUIRED, by_part, expected_tensors
from srgpt.model.vila.weights import INDEX, SINGLE, list_tensors

WORDS, SPECIAL = 128_000, 256
NAMED = {
    128_000: "<|begin_of_text|>",
    128_001: "<|end_of_text|>",
    128_006: "<|start_header_id|>",
    128_007: "<|end_header_id|>",
    128_009: "<|eot_id|>",
}
ADDED = ("[PAD]", "<mask>", "<depth>")
MASK, DEPTH, VOCABULARY = 128_257, 128_258, 128_259
VISION = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14, "num_channels": 3, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
TEXT = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "bos_token_id": 128_000, "eos_token_id": 128_009, "hidden_act": "silu",
    "tie_word_embeddings": False,
}  # fmt: skip
FILE_BYTES = 5 * 10**9
BLOCK = np.random.default_rng(0).bytes(1 << 22)
EVERY = 10


def main() -> None:
    with tempfile.TemporaryDirectory(
        prefix="srgpt-convert-", dir=sys.argv[1] if len(sys.argv) > 1 else None
    ) as name:
        folder = Path(name)
        released, ours, back = (folder / part for part in ("released", "ours", "back"))
        started = time.monotonic()
        make_released(released)
        count, size = totals(released)
        print(f"made up {count} tensors, {size / 1e9:.2f} GB in {time.monotonic() - started:.0f} s")
        expected = hashes(released)
        measure("import", released, ours)
        shutil.rmtree(released)
        assert len(list_tensors(ours)) == count
        measure("export", ours, back)
        assert totals(back) == (count, size)
        assert hashes(back) == expected
        print(f"{count} tensors came back; the hashes of {len(expected)} are what they were")


def make_released(folder: Path) -> None:
    config = SrgptConfig(
        SiglipVisionConfig(**VISION), LlamaConfig(**TEXT), VOCABULARY, MASK, DEPTH, "penultimate", "reference"
    )
    shapes = expected_tensors(config, folder)
    ids = {"llm_mask_token_id": MASK, "llm_depth_token_id": DEPTH}
    settings: dict[str, dict[str, Any]] = {"llm": TEXT, "vision_tower": {**VISION, **ids}}
    for part, names in by_part(shapes).items():
        write_json(folder / part / "config.json", {**REQUIRED[part], **settings.get(part, {})})
        write_weights(folder / part, {theirs: shapes[ours] for theirs, ours in names.items()})
    write_json(folder / "config.json", {**REQUIRED[""], "model_dtype": "torch.bfloat16"})
    write_tokenizer(folder / "llm")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def write_tokenizer(folder: Path) -> None:
    inner = Tokenizer(models.BPE(vocab={f"t{k}": k for k in range(WORDS)}, merges=[]))
    special = [NAMED.get(WORDS + k, f"<|reserved_{k}|>") for k in range(SPECIAL)]
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*special, *ADDED)])
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=NAMED[128_000], eos_token=NAMED[128_009], pad_token=ADDED[0]
    ).save_pretrained(str(folder))


def write_weights(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    files: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        size += 2 * int(np.prod(shape))
        if size > FILE_BYTES and files[-1]:
            files.append({})
            size = 2 * int(np.prod(shape))
        files[-1][name] = shape
    places = {}
    for k, found in enumerate(files, start=1):
        name = SINGLE if len(files) == 1 else f"model-{k:05d}-of-{len(files):05d}.safetensors"
        write_file(folder / name, found)
        places.update(dict.fromkeys(found, name))
    if len(files) > 1:
        write_json(folder / INDEX, {"metadata": {}, "weight_map": places})


def write_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file in pieces: the header's length, the header, then the tensors one after another."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.items():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "little") % len(BLOCK)
            while left:
                piece = BLOCK[at : at + left]
                file.write(piece)
                left, at = left - len(piece), 0


def totals(folder: Path) -> tuple[int, int]:
    found = [tensor for part in PARTS for tensor in list_tensors(folder / part).values()]
    return len(found), sum(tensor.nbytes for tensor in found)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every tenth tensor, read by the offsets in the files' headers."""
    names = [(part, name) for part in PARTS for name in sorted(list_tensors(folder / part))]
    chosen = {f"{part}/{name}" for part, name in names[::EVERY]}
    found = {}
    for part in PARTS:
        for path in sorted((folder / part).glob("*.safetensors")):
            for name, data in raw_tensors(
                path, {n.partition("/")[2] for n in chosen if n.startswith(f"{part}/")}
            ):
                found[f"{part}/{name}"] = data
    assert found.keys() == chosen
    return found


def raw_tensors(path: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name in sorted(wanted & header.keys()):
            start, end = header[name]["data_offsets"]
            file.seek(8 + length + start)
            digest = hashlib.sha256()
            while start < end:
                piece = file.read(min(1 << 24, end - start))
                digest.update(piece)
                start += len(piece)
            yield name, digest.hexdigest()


def measure(what: str, source: Path, out: Path) -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=run, args=(str(source), str(out), theirs))
    child.start()
    theirs.close()
    seconds, start, peak, size = ours.recv()
    child.join()
    print(
        f"{what}: {seconds:.0f} s ({size / seconds / 1e6:.0f} MB/s), peak RSS {peak / 1e9:.2f} GB, of which "
        f"{start / 1e9:.2f} GB are libraries"
    )


def run(source: str, out: str, pipe: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    before = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    record = convert(source, out)
    seconds = time.monotonic() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((seconds, before, peak, record["bytes"]))


if __name__ == "__main__":
    main()
