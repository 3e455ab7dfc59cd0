"""What a dataset must satisfy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srgpt.params.section import Count, Positive, Section, Share


class ValidateParams(Section):
    """What a dataset must satisfy."""

    min_rows: Count = 1
    max_rejected_share: Share = 0.5
    """Highest share of input that may have been set aside."""
    yes_share: tuple[Share, Share] = (0.45, 0.55)
    """Allowed share of positive answers per qualitative category."""
    min_balance_rows: Count = 40
    """Categories with fewer questions are not judged for balance."""
    min_label_accuracy: Share = 0.8
    """Lowest agreement of perceived with true qualitative facts."""
    max_abs_rel: Positive = 1.0
    """Largest median relative error of perceived metric facts."""
    max_blind_lead: Share = 0.1
    """More right answers than by chance, from the text of questions alone, are a warning."""
    gallery: Annotated[int, Field(ge=0, le=200)] = 24
    """Scenes shown in the report."""
    curve_scenes: Annotated[int, Field(ge=0)] = 16
    """Scenes that are degraded to see how facts suffer; a few tenths of a second each."""
