"""From an export to a served model: registry, gates, deployment on Triton, rollback."""

from srgpt.promotion.lifecycle import Promotion, Status, promote, rollback, serve, status, stop

__all__ = ["Promotion", "Status", "promote", "rollback", "serve", "status", "stop"]
