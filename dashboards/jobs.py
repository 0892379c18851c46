"""Recordings in processes of their own (stand-in)."""
import shutil, tempfile
from pathlib import Path
import diskcache
from dash import DiskcacheManager

class Jobs:
    def __init__(self, checkpoints=(), *, workers=1):
        self.folder = Path(tempfile.mkdtemp(prefix="diffviz-"))
        self.cache = diskcache.Cache(str(self.folder / "cache"))
        self.manager = DiskcacheManager(self.cache)
    def __enter__(self): return self
    def __exit__(self, *_): self.close()
    def close(self):
        self.cache.close(); shutil.rmtree(self.folder, ignore_errors=True)
