"""Errors that a person can act on."""


class SrgptError(Exception):
    """Something went wrong while working; the message says what, where, what was expected and what to do.

    The command line prints the message without a traceback and exits with 1.
    """


class InputError(SrgptError):
    """What the user gave is wrong (a parameter, a path, a file's content); the command line exits with 2."""
