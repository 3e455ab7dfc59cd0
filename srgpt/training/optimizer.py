"""The optimizer: AdamW, with Muon for the matrices that ``train.muon`` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from srgpt.params import TrainParams


def make_optimizer(groups: Sequence[dict[str, Any]], params: TrainParams) -> torch.optim.Optimizer:
    """Return the optimizer of the groups of ``parameter_groups``: torch's own, on every device."""
    if params.muon:
        return MuonAndAdamW(groups, params)
    return torch.optim.AdamW(groups, params.learning_rate, params.betas, fused=True)


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon (Jordan 2024) for parameter groups with ``muon``, AdamW for the others, as one optimizer.

    Muon's steps are as large as AdamW's at the same learning rate (Liu et al. 2025), so that both follow one schedule.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], params: TrainParams) -> None:
        rate = params.learning_rate
        muon, rest = ([g for g in groups if g["muon"] is wanted] for wanted in (True, False))
        self._parts: list[torch.optim.Optimizer] = []
        if muon:
            self._parts.append(torch.optim.Muon(muon, rate, adjust_lr_fn="match_rms_adamw"))
        if rest:
            self._parts.append(torch.optim.AdamW(rest, rate, params.betas, fused=True))
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
