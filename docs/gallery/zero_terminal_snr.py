"""What is left of the data at t = T.

The tutorial starts from N(0, I), although in training a part √ᾱ_T of the data is still in x_T.
DDIM adds no noise and so keeps this error: the mean of its samples is off at the end. A schedule
with zero terminal SNR (arXiv 2305.08891) leaves nothing of the data in x_T. Its first step then
needs a network that predicts v or x_0, so the path below is taken from T − 1 on.
"""

import plotly.graph_objects as go

import diffviz as dv

course = dv.NoiseSchedule.course()
zero = course.with_zero_terminal_snr()
ddim = dv.Arm("ddim", dv.ddim())
figure = go.Figure()
end = {}
for schedule, start in ((course, course.T), (zero, zero.T - 1)):
    times = range(start, -1, -1)
    path = dv.gaussian_trajectory(schedule, ddim, mean=2.0, std=0.5, times=times)
    end[schedule.name] = float(path.mean[-1])
    right = 2.0 * schedule.alpha_bars[path.t] ** 0.5
    figure.add_scatter(x=path.t, y=path.mean - right, name=schedule.name)
figure.update_layout(xaxis={"title": "t", "autorange": "reversed"}, yaxis_title="mean − √ᾱ·μ")
print("; ".join(f"{name}: DDIM ends at mean {mean:.3f}" for name, mean in end.items()))
print(zero.violations()[0])
