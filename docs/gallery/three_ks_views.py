"""Three Kolmogorov–Smirnov views of one run.

x_t against N(0, 1) leaves 0 for every sampler, the right ones too. x_t against its own marginal
q(x_t) stays near 0 for DDPM and DDIM. The residual stays near 0 for DDPM alone, because DDIM has
the right marginals and another joint law. Only the three together tell the arms apart.
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
