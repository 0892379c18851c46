"""An x-ray of a sampler written by hand, with a fault in it.

The loop below looks right, and its last lines are the tutorial's, but it adds β_t·z where √β_t·z
is right. `xray` calls the loop with a model of its own and sees only the x_t and t of each call.
From these it works out the coefficients of every step and compares them with the known rules.
"""

import plotly.graph_objects as go
import torch

import diffviz as dv

schedule = dv.NoiseSchedule.course(T=100, beta_end=0.1)


def my_sampler(model):
    x = torch.randn(64, 3, 16, 16, generator=(g := torch.Generator().manual_seed(0)))
    for t in range(100, 0, -1):
        z = torch.randn(x.shape, generator=g) if t > 1 else 0.0
        a, b, c = (float(s[t]) for s in (schedule.S1, schedule.S2, schedule.betas))
        x = a * (x - b * model(x, t)) + c * z
    return x


seen = dv.xray(my_sampler, schedule)
table = seen.coefficients
figure = go.Figure()
figure.add_scatter(x=table["t"], y=table["std"], name="noise injected, as seen")
figure.add_scatter(x=table["t"], y=table["expected_std"], name=f"by {seen.rule}")
figure.update_layout(xaxis={"title": "t", "autorange": "reversed"}, yaxis_title="std")
print(f"{seen.rule}: {'; '.join(finding.message for finding in seen.findings)}")
