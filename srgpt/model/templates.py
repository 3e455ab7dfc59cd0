"""Chat templates of the reference's language models, byte for byte, as transformers' Jinja templates.

``llama_3`` is for Llama-3-Instruct, ``vicuna_v1`` for the Llama-2 family. The last answer of a conversation ends
otherwise than those before it in ``llama_3``. A turn of ours is a conversation of its own (the prefix and one
question), so its answer is always the last one.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from srgpt.errors import InputError

LLAMA_3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
VICUNA_V1_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)

LLAMA_3 = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] != 'system' %}<|start_header_id|>system<|end_header_id|>\n\n"
    f"{LLAMA_3_SYSTEM}<|eot_id|>{{% endif %}}"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}"
    "{% if loop.last and message['role'] == 'assistant' %}<|end_of_text|>{% else %}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
VICUNA_V1 = (
    "{{ bos_token or '' }}"
    f"{{% if messages[0]['role'] != 'system' %}}{VICUNA_V1_SYSTEM} {{% endif %}}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}ASSISTANT: {{ message['content'] }}{{ eos_token }}"
    "{% elif message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEMPLATES = {"llama_3": LLAMA_3, "vicuna_v1": VICUNA_V1}

LLAMA_3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
"""By these a tokenizer is known as Llama-3's."""


def template_for(tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> str:
    """Return the chat template called ``name``, or else the one of the tokenizer's family.

    A tokenizer with Llama-3's header tokens gets ``llama_3``, any other ``vicuna_v1``, which needs no tokens of its
    own. Raises :class:`InputError` for an unknown name, and for ``llama_3`` without its tokens.
    """
    known = tokenizer.get_vocab()
    missing = [token for token in LLAMA_3_TOKENS if token not in known]
    name = name or ("vicuna_v1" if missing else "llama_3")
    if name not in TEMPLATES:
        raise InputError(f"template {name!r}: there is none of that name; allowed: {', '.join(TEMPLATES)}")
    if name == "llama_3" and missing:
        raise InputError(
            f"template llama_3: the tokenizer has no {', '.join(missing)}. Use vicuna_v1, or Llama-3's tokenizer."
        )
    return TEMPLATES[name]
