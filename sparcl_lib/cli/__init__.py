"""The command line: parse, call, print."""

from sparcl_lib.cli.program import app, main

__all__ = ["app", "main"]
