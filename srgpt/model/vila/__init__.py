"""Released checkpoints: a folder in the reference's layout becomes one of ours, and one of ours becomes such a folder.

    config.json            the parts' configurations once more, and how they are joined
    llm/                   a causal language model with its tokenizer, as transformers saves them
    vision_tower/          a SigLIP vision model; its config.json holds the ids of <mask> and <depth>
    mm_projector/          6 tensors
    region_extractor/      10 tensors

Read in this order: ``settings`` (configurations), ``weights`` (tensors), ``importing``, ``exporting``, ``convert``.
"""

from srgpt.model.vila.convert import convert

__all__ = ["convert"]
