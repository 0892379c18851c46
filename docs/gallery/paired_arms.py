"""Three ways of sampling, recorded and in closed form.

For Gaussian data the denoiser is exact and every step is a linear function of x_t, so the std
between samples is known at every step without sampling. The dots are 4,096 recorded samples, the
curves are computed by `gaussian_trajectory`. The samples of z = 0 contract to nearly one point,
as theory says.
"""

import numpy as np
import plotly.graph_objects as go

import diffviz as dv

schedule = dv.NoiseSchedule.course()
run = dv.record(dv.GaussianDenoiser(schedule, 2.0, 0.5), schedule, n=4096, progress=False)
figure = go.Figure()
gap = 0.0
for arm, ink in zip(dv.DEFAULT_ARMS, ("#1a7fc4", "#d55e00", "#009e73"), strict=True):
    exact = dv.gaussian_trajectory(schedule, arm, mean=2.0, std=0.5)
    measured = run.dataset["std"].sel(arm=arm.name, quantity="x").values
    gap = max(gap, float(np.abs(measured / exact.std - 1).max()))
    figure.add_scatter(x=exact.t, y=exact.std, line_color=ink, name=f"{arm.name}, closed form")
    dots = {"mode": "markers", "marker_color": ink, "name": f"{arm.name}, recorded"}
    figure.add_scatter(x=exact.t[::20], y=measured[::20], **dots)
figure.update_layout(xaxis={"title": "t", "autorange": "reversed"}, yaxis_title="std of xₜ")
print(f"The largest relative gap between recording and closed form is {gap:.1%}.")
