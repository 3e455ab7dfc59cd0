"""Benchmarking."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srgpt.params.section import Count, Name, Section


class EvaluateParams(Section):
    """Benchmarking."""

    dataset: Name = "bench"
    batch_size: Count = 64
    max_new_tokens: Count = 32
    max_questions: Annotated[int, Field(ge=0)] = 0
    """Evaluate only the first so many questions; 0 means all."""
    gallery: Annotated[int, Field(ge=0)] = 24
    """Examples shown on the gallery page."""
