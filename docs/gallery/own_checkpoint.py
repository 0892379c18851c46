"""A checkpoint of the tutorial's network, and why two equal calls differ.

The tutorial's first block draws new weights for its shortcut in every call, in evaluation too, and
never saves them. `load_denoiser` reads such a file and lets you choose: new weights in every call,
as in the tutorial, or weights that are drawn once and kept. The figure shows the difference
between two equal calls.
"""

import tempfile
from pathlib import Path

import plotly.graph_objects as go
import torch

import diffviz as dv

torch.manual_seed(0)
network = dv.ContextUnet(3, n_feat=16, n_cfeat=5, height=16, shortcut="course")
gaps = {}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model_trained.pth"
    torch.save(network.state_dict(), path)
    for shortcut in ("course", "frozen"):
        denoiser = dv.load_denoiser(path, shortcut=shortcut)
        x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        gaps[shortcut] = [float((denoiser(x, t) - denoiser(x, t)).std()) for t in (500, 250, 10)]
figure = go.Figure([go.Bar(x=["500", "250", "10"], y=v, name=k) for k, v in gaps.items()])
figure.update_layout(xaxis={"title": "t", "type": "category"}, yaxis_title="std of the difference")
print("Std of the difference between two equal calls: " + str(gaps))
