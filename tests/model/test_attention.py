"""Packed attention: a packed row computes, and learns, what its segments do one by one, in all families of models."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    Qwen3Config,
)

from srgpt.errors import InputError
from srgpt.model.attention import PACKED, PackedLayout, packed_layout

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "qwen3-window": Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "gemma": GemmaConfig(**SIZES),
    "gemma2-softcap": Gemma2Config(**SIZES, sliding_window=5, attn_logit_softcapping=2.0),
    "gemma3-window": Gemma3TextConfig(
        **SIZES, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
}
SAMPLES = [(6, [3, 9, 1]), (1, [2]), (4, [5, 5, 5, 5, 7])]


def model_of(family, implementation=PACKED, seed=0):
    return model_from(FAMILIES[family], implementation, seed)


def model_from(config, implementation=PACKED, seed=0):
    torch.manual_seed(seed)
    config = type(config)(**config.to_dict())
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    model.set_attn_implementation(implementation)
    return model


def plain_of(family):
    return model_of(family, "eager" if "softcap" in family else "sdpa")


def tokens_of(count, seed=1):
    return torch.randint(1, 50, (1, count), generator=torch.Generator().manual_seed(seed))


def pieces(samples):
    """Yield, for each segment, the places of its prefix and of itself in the flat row."""
    start = 0
    for prefix, lengths in samples:
        first = list(range(start, start + prefix))
        start += prefix
        for length in lengths:
            yield first, list(range(start, start + length))
            start += length


def positions_of(samples):
    found = [
        torch.cat([torch.arange(prefix), *(prefix + torch.arange(n) for n in lengths)])
        for prefix, lengths in samples
    ]
    return torch.cat(found)[None]


def packed_hidden(model, ids, samples, limit=None):
    layout = packed_layout([p for p, _ in samples], [n for _, n in samples], limit=limit)
    mask = torch.zeros(1, 1, 1, 1)
    out = model.base_model(
        inputs_embeds=model.get_input_embeddings()(ids),
        attention_mask=mask,
        position_ids=positions_of(samples),
        packing=layout,
        use_cache=False,
    )
    return model.get_output_embeddings()(out.last_hidden_state)[0]


def alone(model, ids, samples):
    """Return the logits of every segment's tokens, each computed with its prefix only."""
    return [
        model(inputs_embeds=model.get_input_embeddings()(ids[:, first + own]), use_cache=False).logits[
            0, len(first) :
        ]
        for first, own in pieces(samples)
    ]


@pytest.mark.parametrize("limit", [None, 1, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_alone(family, limit):
    """Logits, and gradients of all weights, for segments that share blocks and for segments that do not."""
    total = sum(p + sum(n) for p, n in SAMPLES)
    ids, (packed, plain) = tokens_of(total), (model_of(family), plain_of(family))
    logits = packed_hidden(packed, ids, SAMPLES, limit)
    if FAMILIES[family].model_type == "gemma2":  # its head's own cap is the head's, not attention's
        cap = packed.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    own = torch.cat([logits[places] for _, places in pieces(SAMPLES)])
    expected = torch.cat(alone(plain, ids, SAMPLES))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(own.shape, generator=torch.Generator().manual_seed(2)) / len(own)
    (own * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, one), (_, two) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, two.grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.integers(1, 6), min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 12),
)
def test_any_layout_equals_alone(samples, limit):
    ids = tokens_of(sum(p + sum(n) for p, n in samples))
    with torch.no_grad():
        logits = packed_hidden(model_of("llama"), ids, samples, limit)
        expected = torch.cat(alone(plain_of("llama"), ids, samples))
    own = torch.cat([logits[places] for _, places in pieces(samples)])
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_nothing_leaks_between_samples_or_segments():
    samples, (changed, *others) = SAMPLES, list(pieces(SAMPLES))
    ids = tokens_of(sum(p + sum(n) for p, n in samples))
    other = ids.clone()
    other[0, changed[1]] = 50 - other[0, changed[1]]
    with torch.no_grad():
        one, two = (packed_hidden(model_of("qwen3"), x, samples) for x in (ids, other))
    assert not torch.equal(one[changed[1]], two[changed[1]])
    for first, own in others:
        assert torch.equal(one[first + own], two[first + own])


@pytest.mark.parametrize("family", ["llama", "gemma2-softcap"])
def test_gradient_checkpointing_changes_nothing(family):
    ids = tokens_of(sum(p + sum(n) for p, n in SAMPLES))
    grads = []
    for checkpointing in (False, True):
        model = model_of(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        packed_hidden(model, ids, SAMPLES).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_layout_it_is_ordinary_attention(family):
    """Sample generations during training: left-padded prompts, with a cache."""
    ids = tokens_of(14).view(2, 7)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    outs = [
        m.eval().generate(
            ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )
        for m in (model_of(family), plain_of(family))
    ]  # fmt: skip
    assert torch.equal(outs[0].sequences, outs[1].sequences)
    for one, two in zip(outs[0].logits, outs[1].logits, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_blocks_are_filled_and_padding_is_small():
    layout = packed_layout([20] * 4, [[30] * 16] * 4, limit=64)
    (blocks,) = layout.blocks
    assert blocks.owner.tolist() == [s for s in range(4) for _ in range(8)]
    assert blocks.mask.shape == (32, 1, 64, 84)
    assert len(layout.places) == len(set(layout.places.tolist())) == 4 * (20 + 480)
    assert torch.equal(layout.index[layout.places], torch.arange(4 * 500))


def test_long_segments_do_not_pad_short_ones():
    layout = packed_layout([20, 20], [[15] * 8, [700, 15, 30]], limit=20)
    assert [b.mask.shape[0] for b in layout.blocks] == [9, 1, 1]
    assert [b.mask.shape[2] for b in layout.blocks] == [16, 32, 704]


def test_a_layout_moves_as_a_whole():
    layout = packed_layout([2], [[3, 4]]).to("meta")
    assert isinstance(layout, PackedLayout)
    assert {
        t.device.type
        for t in (
            layout.index,
            layout.places,
            layout.positions,
            layout.blocks[0].owner,
            layout.blocks[0].mask,
        )
    } == {"meta"}


def test_what_is_not_computed_is_refused():
    layout = packed_layout([2], [[3]])
    model = model_of("llama")
    with pytest.raises(InputError, match="s_aux"):
        model(
            tokens_of(5), attention_mask=torch.zeros(1, 1, 1, 1), position_ids=torch.arange(5)[None], packing=layout,
            s_aux=torch.zeros(4),
        )  # fmt: skip
    with pytest.raises(InputError, match="at least one segment"):
        packed_layout([3, 2], [[], []])
