"""The noise dial: an ancestral sampler with λ times its noise.

All in closed form, for data N(2, 0.5²). At t = 100 the std of the residual
r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t) is close to λ, and the std of the samples is close to λ times the
std of the data. Near λ = 0 both stay above the line, because a little of the noise of the start
remains.
"""

import numpy as np
import plotly.graph_objects as go

import diffviz as dv

schedule = dv.NoiseSchedule.course()
dial = np.linspace(0, 1.5, 31)
arms = [dv.Arm(f"{scale:g}", dv.ddpm(), float(scale)) for scale in dial]
paths = [dv.gaussian_trajectory(schedule, arm, mean=2.0, std=0.5) for arm in arms]
residual = np.array([path.residual_std[schedule.T - 100] for path in paths])  # at t = 100
spread = np.array([path.std[-1] for path in paths])
figure = go.Figure()
figure.add_scatter(x=dial, y=residual, name="std of the residual at t = 100")
figure.add_scatter(x=dial, y=spread / 0.5, name="std of the samples / std of the data")
figure.add_scatter(x=dial, y=dial, line={"dash": "dot", "color": "grey"}, name="λ")
figure.update_layout(xaxis_title="noise scale λ", yaxis_title="std, or share of it")
half = f"{residual[10]:.3f}, of the samples {spread[10] / 0.5:.3f} times the data's"
print(f"With λ = ½ the std of the residual is {half}.")
