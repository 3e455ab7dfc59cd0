"""ONNX export and its proof."""

from __future__ import annotations

from typing import Literal

from srgpt.params.section import Count, Positive, Section, Share


class ExportParams(Section):
    """ONNX export and its proof."""

    precision: Literal["fp32", "fp16", "int4"] = "fp32"
    parity_questions: Count = 50
    max_logit_error: Positive = 1e-3
    """Largest allowed max relative logit error against PyTorch."""
    min_parity_agreement: Share = 1.0
    """Share of the parity questions whose greedy answer must be the same as PyTorch's."""
