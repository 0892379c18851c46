"""A missing root in the training.

Many copies of the tutorial train with √ᾱ·x_0 + (1−ᾱ)·ε. For Gaussian data the best denoiser of
this training is linear and can be written down. It expects less noise in x_t than there is. Near
the data its prediction is too small, the last steps leave noise behind, and the samples are spread
too widely.
"""

import plotly.graph_objects as go

import diffviz as dv

schedule = dv.NoiseSchedule.course()


def trained_without_root(x, t, context=None):
    noise, signal = 1 - schedule.alpha_bars[t], schedule.alpha_bars[t] ** 0.5
    return (x - 2.0 * signal) * noise / (signal**2 * 0.5**2 + noise**2)


right = dv.GaussianDenoiser(schedule, 2.0, 0.5)
arms = [dv.Arm("ddpm", dv.ddpm())]
figure = go.Figure()
std = {}
for name, model in (("with the root", right), ("without", trained_without_root)):
    run = dv.record(model, schedule, arms=arms, n=8192, sample_shape=(), progress=False)
    std[name] = float(run.dataset["std"].sel(arm="ddpm", quantity="x", t=0))
    spread = run.dataset["std"].sel(arm="ddpm", quantity="x")
    figure.add_scatter(x=run.dataset["t"], y=spread, name=name)
figure.update_layout(xaxis={"title": "t", "autorange": "reversed"}, yaxis_title="std of xₜ")
print("Std of the samples, 0.5 in the data: " + str({k: round(v, 3) for k, v in std.items()}))
