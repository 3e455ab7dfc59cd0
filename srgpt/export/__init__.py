"""From a trained model to ONNX graphs, the proof that they say the same, and a Triton model repository."""

PARITY, LINEAGE = "parity.json", "lineage.json"
"""Files of an exported folder: the proof, and what the model was made from."""
