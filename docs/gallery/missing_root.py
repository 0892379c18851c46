"""A root that is missing in the training.

Many copies of the tutorial train with √ᾱ·x_0 + (1−ᾱ)·ε. The best denoiser of that training is
linear for Gaussian data and can be written down. It believes x_t to hold less noise than it does.
Near the data it answers too little, the last steps leave noise behind, and the samples come out
too wide.
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
