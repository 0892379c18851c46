"""A mixture loses its small mode.

The data are 70 % N(−1, 0.2²) and 30 % N(1.5, 0.3²). Without its noise the DDPM step does not end
at the mean of the data, −0.25, where there are no data at all. The samples contract towards the
mean while the modes overlap, and then all of them fall into the same mode.
"""

import plotly.graph_objects as go

import diffviz as dv

schedule = dv.NoiseSchedule.course()
denoiser = dv.MixtureDenoiser(schedule, [-1, 1.5], [0.2, 0.3], [0.7, 0.3])
run = dv.record(denoiser, schedule, n=4096, progress=False)
figure = go.Figure()
share = {}
for arm in run.arms:
    density = run.dataset["histogram"].sel(arm=arm, quantity="x", t=0)
    figure.add_scatter(x=density["bin"], y=density / density.sum(), name=arm)
    share[arm] = float(run.dataset["class_count"].sel(arm=arm)[1] / run.spec.n)
figure.update_layout(xaxis_title="x₀", yaxis_title="share per bin", yaxis_range=[0, 0.06])
words = ", ".join(f"{arm} {part:.1%}" for arm, part in share.items())
print(f"Share of samples in the small mode (30 % is right): {words}.")
