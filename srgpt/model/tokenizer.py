"""Tokenizers: one trained on the conversations, or a pretrained one with what this model needs added."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from srgpt.errors import InputError
from srgpt.model.prompts import DEPTH, IMAGE, MASK
from srgpt.model.templates import template_for

PAD, BOS, EOS, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<user>", "<assistant>"
SPECIAL = (PAD, BOS, EOS, IMAGE, MASK, DEPTH, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on questions and answers; every digit is a token of its own, no text is unknown.

    The same texts in the same order give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # placeholders swallow the space before them: it carries nothing, and every token costs
    special = [AddedToken(t, special=True, normalized=False, lstrip=t in (MASK, DEPTH)) for t in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=[IMAGE, MASK, DEPTH, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name: str, template: str | None = None) -> PreTrainedTokenizerBase:
    """Load a pretrained tokenizer and add what this model needs: padding, placeholders, a chat template.

    ``template`` names one of :data:`~srgpt.model.templates.TEMPLATES`; without a name the tokenizer keeps its own,
    or gets its family's where it knows no chat.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, padding_side="left")
    add_placeholders(tokenizer)
    if template is not None or tokenizer.chat_template is None:
        tokenizer.chat_template = template_for(tokenizer, template)
    return tokenizer


def add_placeholders(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add padding and placeholders where they are missing, in the reference's order; ``<image>`` comes last.

    The reference pads with the unknown token where there is one, else with a new ``[PAD]``.
    """
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": tokenizer.unk_token or "[PAD]"})
    known = tokenizer.get_vocab()
    missing = [t for t in (MASK, DEPTH, IMAGE) if t not in known]
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in missing])


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens the language model must know.

    An ``<image>`` that was added last is none of them: features always take its place, nothing ever predicts it,
    and the reference has no row for it.
    """
    size = len(tokenizer)
    return size - 1 if tokenizer.convert_tokens_to_ids(IMAGE) == size - 1 else size


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of one token."""
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int) or number == tokenizer.unk_token_id:
        raise InputError(f"the tokenizer has no {token!r} token")
    return number
