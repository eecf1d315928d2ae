"""The command line: `moonshine <command>`, the same as `python -m moonshine <command>`."""

from moonshine.cli.main import main, run

__all__ = ["main", "run"]
