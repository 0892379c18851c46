"""Three Kolmogorov–Smirnov tests of one run.

The distance of x_t from N(0, 1) becomes large for every sampler, right ones included. The distance
of x_t from the marginal q(x_t) stays small for DDPM and DDIM. That of the residual stays small
for DDPM alone, because DDIM has the right marginals and another joint law. It takes all three to
tell the arms apart.
"""

import diffviz as dv

schedule = dv.NoiseSchedule.course()
run = dv.record(dv.GaussianDenoiser(schedule, 2.0, 0.5), schedule, n=4096, progress=False)
figure = dv.plot(run, "ks")
at = run.dataset.sel(t=100)
naive = at["ks_normal"].sel(quantity="x")
marginal = at["ks_marginal"]
residual = at["ks_normal"].sel(quantity="residual")
for arm in run.arms:
    views = [float(view.sel(arm=arm)) for view in (naive, marginal, residual)]
    print(f"{arm:5} at t = 100: naive {views[0]:.3f}, q(x_t) {views[1]:.3f}, r_t {views[2]:.3f}")
