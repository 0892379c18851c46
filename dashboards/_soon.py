"""Stand-ins for what lands from elsewhere; goes away."""
from dataclasses import dataclass
import numpy as np
from diffviz.figures import PICTURES
from diffviz.errors import InputError
from diffviz.figures import theme as T

def plot(run, name, *, language="en", theme="light", t=None):
    if name not in PICTURES: raise InputError(name)
    fig = PICTURES[name](run, language)
    if fig is None: raise InputError(name)
    fig.layout.shapes = ()
    fig = T.themed(fig, theme == "dark")
    axes = [k.replace("axis","") for k in fig.to_dict()["layout"] if k.startswith("xaxis")]
    fig.layout.meta = dict(fig.layout.meta or {}, time_axes=axes if (fig.layout.meta or {}).get("time") else [])
    return fig

from functools import lru_cache
@lru_cache
def available(run):
    out=[]
    for n in PICTURES:
        try: plot(run,n); out.append(n)
        except InputError: pass
    return out

@dataclass(frozen=True)
class Story:
    headline: str
    arms: dict

def story(run, language):
    return Story("Without its noise, the sampler makes nearly the same picture every time.", {a: f"{a}: a sentence about its end." for a in run.arms})

def step_sentences(run, picture, language):
    return [f"{picture} at t = {t}." for t in run.dataset["t"].values]
