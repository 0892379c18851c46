"""The dashboard: arrangement of runs, figures and words in a browser, and nothing else.

Names are imported when they are first used: the process that records needs no server.
"""

from importlib import import_module
from typing import Any

__all__ = ["create_app", "load_runs", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dashboards' has no attribute {name!r}")
    return getattr(import_module("dashboards.server"), name)
