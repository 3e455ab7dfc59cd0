"""Curation: lifting, facts, questions, and the checks that a dataset must pass."""
