"""The optimizer: AdamW, with Muon (Jordan 2024) for the matrices that ``train.muon`` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from srgpt.params import TrainParams


def make_optimizer(groups: Sequence[dict[str, Any]], params: TrainParams) -> torch.optim.Optimizer:
    """Return the optimizer of the groups of ``parameter_groups``: torch's own, on every device.

    Muon's steps are as large as AdamW's at the same learning rate (Liu et al. 2025), so that both follow one schedule.
    """
    muon, rest = ([g for g in groups if g["muon"] is wanted] for wanted in (True, False))
    parts: list[torch.optim.Optimizer] = []
    if muon:
        parts.append(torch.optim.Muon(muon, params.learning_rate, adjust_lr_fn="match_rms_adamw"))
    if rest:
        parts.append(torch.optim.AdamW(rest, params.learning_rate, params.betas, fused=True))
    return parts[0] if len(parts) == 1 else Combined(parts)


class Combined(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = list(parts)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with each optimizer."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimizer."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()  # loading made new ones
