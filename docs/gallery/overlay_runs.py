"""Two runs in one plot: an exact denoiser, and one whose prediction is 5 % too small.

A network that was trained too briefly predicts too close to the mean, so its ε̂ is a little small.
The samples still look right. From t = 450 to 100 the std of the residual is larger in the second
run than in the first: each step leaves more noise than the denoiser is told in the next.
"""

import diffviz as dv

schedule = dv.NoiseSchedule.course()
exact = dv.MixtureDenoiser(schedule, [-1, 1.5], [0.2, 0.3], [0.7, 0.3])


def too_little(x, t, context=None):
    return 0.95 * exact(x, t)


arms = [dv.Arm("ddpm", dv.ddpm())]
first = dv.record(exact, schedule, arms=arms, n=4096, progress=False)
second = dv.record(too_little, schedule, arms=arms, n=4096, sample_shape=(), progress=False)
both = dv.combine({"exact": first, "5 % too small": second})
figure = dv.plot(both, "dial")
residual = both.dataset["std"].sel(quantity="residual", t=slice(450, 100)).mean("t")
print("Mean residual std, t = 450…100: " + ", ".join(f"{float(r):.3f}" for r in residual))
