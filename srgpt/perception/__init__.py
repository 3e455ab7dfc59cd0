"""Perception: what a source did not give is supplied here, and marked with who supplied it."""
