"""What a child process is given so that it finds this package wherever its parent found it, installed or not."""

from __future__ import annotations

import os
import sys


def child_environment() -> dict[str, str]:
    """This process' environment, with its `sys.path` for a Python in a process of its own."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
