"""From the reference's layout to our model folder."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from srgpt.errors import InputError
from srgpt.model.build import greedy_decoding
from srgpt.model.configuration import SrgptConfig
from srgpt.model.processing import SrgptProcessor
from srgpt.model.prompts import DEPTH, IMAGE, MASK
from srgpt.model.templates import template_for
from srgpt.model.tokenizer import add_placeholders, token_id
from srgpt.model.vila.plan import KEPT, Plan, copy_files, read_tokenizer, side_files
from srgpt.model.vila.settings import CONFIG, PARTS, by_part, expected_tensors, read_config
from srgpt.model.vila.weights import StoredTensor, check_tensors, list_tensors
from srgpt.storage import digest, write_json
from srgpt.tracking import Lineage, git_commit

LAYOUT = "srgpt"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def plan_import(source: Path, template: str | None = None) -> Plan:
    """Return how ``source``, in the reference's layout, becomes a model folder of ours.

    ``template`` names its prompts, which the folder does not tell; by default those of its tokenizer's family.
    Raises :class:`InputError` for whatever is missing, unexpected or damaged.
    """
    config = read_config(source)
    found = {part: list_tensors(source / part) for part in PARTS}
    _check_layers(source / "llm", config.text_config.num_hidden_layers, found["llm"])
    _check_layers(source / "vision_tower", config.vision_config.num_hidden_layers, found["vision_tower"])
    shapes = expected_tensors(config, source)
    weights: dict[str, StoredTensor] = {}
    for part, names in by_part(shapes).items():
        check_tensors(
            str(source / part), found[part], {theirs: shapes[ours] for theirs, ours in names.items()}
        )
        weights |= {ours: found[part][theirs] for theirs, ours in names.items()}
    tokenizer = _tokenizer(source / "llm", config, template)
    config.image_token_id = token_id(tokenizer, IMAGE)
    config.dtype = _DTYPES[weights["llm.model.embed_tokens.weight"].dtype]
    kept, left_out = side_files(source)

    def write_rest(folder: Path) -> None:
        write_json(str(folder / "lineage.json"), vars(_lineage(weights)))
        copy_files(source, kept, folder / KEPT)
        config.architectures = ["SrgptForConditionalGeneration"]
        config.save_pretrained(folder)
        own = config.text_config.eos_token_id
        greedy_decoding(tokenizer, own).save_pretrained(folder)
        _processor(tokenizer, config).save_pretrained(folder)

    return Plan(LAYOUT, {"": weights}, write_rest, tuple(map(str, left_out)))


def _lineage(weights: dict[str, StoredTensor]) -> Lineage:
    """Return the lineage of an imported model: no run and no data of ours, and the layout of its weights."""
    listed = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    return Lineage(git_commit(), "imported", digest(listed)[:16])


def _processor(tokenizer: PreTrainedTokenizerBase, config: SrgptConfig) -> SrgptProcessor:
    return SrgptProcessor(
        tokenizer,
        image_size=config.vision_config.image_size,
        image_tokens=config.image_tokens,
        depth="relative",
        mask_resize="bicubic",
    )


def _check_layers(folder: Path, layers: int, tensors: dict[str, StoredTensor]) -> None:
    """Refuse a number of layers that the weights belie, before a model of so many is built."""
    numbers = {int(m[1]) for name in tensors if (m := re.search(r"\blayers\.(\d{1,9})\.", name))}
    if layers != len(numbers):
        raise InputError(
            f"{folder / CONFIG}: num_hidden_layers is {layers}, but the weights have {len(numbers)} layers"
        )


def _tokenizer(folder: Path, config: SrgptConfig, template: str | None) -> PreTrainedTokenizerBase:
    """Return the folder's tokenizer with ``<image>``, padding and prompts; its own tokens stay as they are."""
    tokenizer = read_tokenizer(folder)
    rows = config.text_config.vocab_size
    known = tokenizer.get_vocab()
    for token, number in ((MASK, config.mask_token_id), (DEPTH, config.depth_token_id)):
        if known.get(token) != number:
            raise InputError(
                f"{folder}: the tokenizer's id of {token} is {known.get(token)}, but vision_tower/{CONFIG} has {number}"
            )
    beyond = sorted(token for token, number in known.items() if number >= rows)
    if beyond:
        raise InputError(
            f"{folder}: the tokenizer knows {beyond[0]!r}, which is beyond the vocabulary of {rows}"
        )
    tokenizer.padding_side = "left"
    add_placeholders(tokenizer)
    if tokenizer.pad_token_id >= rows:
        raise InputError(f"{folder}: the tokenizer has neither a padding nor an unknown token")
    tokenizer.chat_template = template_for(tokenizer, template)
    return tokenizer
