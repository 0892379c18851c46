"""Sprites of every class, from the shipped network in 20 steps of DDIM.

The network was trained with one-hot contexts that were sometimes dropped, so one network samples
with and without a class. Every row starts from the same noise; only the context differs. A sample
counts as a hit if the nearest training sprite has the class that was asked for.
"""

import numpy as np
from PIL import Image

import diffviz as dv
from diffviz.diffusion.names import shipped_weights

denoiser = dv.load_denoiser(shipped_weights())
points = denoiser.law.points.reshape(len(denoiser.law.points), -1)
ddim = [dv.Arm("ddim", dv.ddim())]
rows, hits = [], {}
for k, label in enumerate(denoiser.classes):
    run = dv.record(
        denoiser, denoiser.schedule, arms=ddim, n=8, steps=20, label=label, progress=False
    )
    x = run.dataset["samples"].values[0]
    nearest = [((points - sample.ravel()) ** 2).sum(axis=1).argmin() for sample in x]
    hits[label] = int((denoiser.law.labels[nearest] == k).sum())
    rows.append(np.concatenate(x.clip(-1, 1).transpose(0, 2, 3, 1), axis=1))
figure = Image.fromarray((127.5 + 127.5 * np.concatenate(rows)).astype("uint8"))
figure = figure.resize((512, 320), Image.Resampling.NEAREST)
print("Of 8 samples each, nearest to a sprite of the class asked for: " + str(hits))
