"""Two runs laid over each other: an exact denoiser, and one that answers 5 % too little.

A network that was trained too short answers towards the mean, so its ε̂ is a little small. The
samples still look right. The residual of the second run lies above that of the first all the way:
each step takes away less noise than the next one is told.
"""

import diffviz as dv
from diffviz.figures import PICTURES
from diffviz.recording.combine import combine

schedule = dv.NoiseSchedule.course()
exact = dv.MixtureDenoiser(schedule, [-1, 1.5], [0.2, 0.3], [0.7, 0.3])


def too_little(x, t, context=None):
    return 0.95 * exact(x, t)


arms = [dv.Arm("ddpm", dv.ddpm())]
first = dv.record(exact, schedule, arms=arms, n=4096, progress=False)
second = dv.record(too_little, schedule, arms=arms, n=4096, sample_shape=(), progress=False)
both = combine({"exact": first, "5 % too little": second})
figure = PICTURES["dial"](both, "en")
residual = both.dataset["std"].sel(quantity="residual", t=slice(450, 100)).mean("t")
print("Mean residual std, t = 450…100: " + ", ".join(f"{float(r):.3f}" for r in residual))
