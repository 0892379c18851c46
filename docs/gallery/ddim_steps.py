"""How many steps are enough?

In closed form, for data N(0.5, 0.5²): the distance of the samples from the data at the end, as
the Wasserstein distance of two Gaussians. With few steps DDIM and √β̃ leave too little spread. Over
a long jump √β adds more noise than the exact step would, and here this makes up for it. With many
steps DDIM keeps the error of its start: the trace of the data that the start lacks.
"""

import numpy as np
import plotly.graph_objects as go

import diffviz as dv

schedule = dv.NoiseSchedule.course()
rules = (dv.ddpm(), dv.ddpm("posterior"), dv.ddim())
steps = [5, 10, 20, 50, 100, 250, 500]
figure = go.Figure()
distance = {}
for rule in rules:
    arm = dv.Arm(rule.name, rule)
    ends = [
        dv.gaussian_trajectory(schedule, arm, 0.5, 0.5, schedule.times(count)) for count in steps
    ]
    distance[arm.name] = [float(np.hypot(e.mean[-1] - 0.5, e.std[-1] - 0.5)) for e in ends]
    figure.add_scatter(x=steps, y=distance[arm.name], name=arm.name, mode="lines+markers")
figure.update_layout(xaxis={"title": "steps", "type": "log"}, yaxis_title="W2 from the data")
for name, values in distance.items():
    print(f"{name}: {values[1]:.3f} with 10 steps, {values[-1]:.3f} with all 500.")
