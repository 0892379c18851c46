"""The dashboard: runs, figures and sentences arranged in a browser, by Dash.

`app` makes the application and serves it, `shell` is what every page has around it, `shelf` hands
out runs, `security` stands before every request, `jobs` records in processes of its own, and each
file of `pages/` is one page: its layout and its callbacks. Read `pages/schedule.py` first.
"""

from importlib import import_module
from typing import Any

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    # The process that records imports this package too, and needs no server.
    if name not in __all__:
        raise AttributeError(f"module 'dashboards' has no attribute {name!r}")
    return getattr(import_module("dashboards.app"), name)
