"""Measuring a model: predictions, deterministic grades, statistics, controls and the report."""
