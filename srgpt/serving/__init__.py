"""The runtime of a served model: ONNX Runtime, numpy and pillow; no torch.

``protocol`` says what a request and an answer are, ``engine`` answers requests in batches (``preprocess`` and
``decoder`` are its halves), ``client`` asks a Triton server, and ``triton`` holds the thin shells that Triton
loads. The package travels inside every exported model, so a served version carries the code that it was
tested with.
"""
