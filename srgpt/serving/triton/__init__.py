"""What Triton loads: ``model`` opens the engine of one exported version, ``router`` passes requests on to it.

Triton imports these files by themselves; ``srgpt`` comes from the folder beside them in the model repository.
"""
