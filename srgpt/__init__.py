"""srgpt: curate, train, evaluate, export and promote grounded spatial vision-language models."""

__version__ = "0.1.0"
