"""The region-and-depth vision-language model, after SpatialRGPT, as a transformers model.

Read in this order: ``configuration``, ``vision``, ``region``, ``connector``, ``modeling``; then ``pixels``
and ``processing`` for what goes in. ``pixels`` needs numpy and pillow only, so that a server without torch
can use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srgpt.model.configuration import SrgptConfig
    from srgpt.model.modeling import SrgptForConditionalGeneration
    from srgpt.model.processing import SrgptProcessor

__all__ = ["SrgptConfig", "SrgptForConditionalGeneration", "SrgptProcessor"]

_HOMES = {
    "SrgptConfig": "configuration",
    "SrgptForConditionalGeneration": "modeling",
    "SrgptProcessor": "processing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
