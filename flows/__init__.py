"""Prefect flows over the chain: retrain, curate, evaluate, promote.

Prefect reads its settings when it is imported, so they are given here, before any flow module imports it:
state lies in the checkout, and nothing phones home. What the environment already says stays.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout that the flows work in unless they are given another workspace."""

(ROOT / ".srgpt").mkdir(exist_ok=True)
os.environ.setdefault("PREFECT_HOME", str(ROOT / ".srgpt" / "prefect"))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
