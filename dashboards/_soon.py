"""Stand-ins for what lands from elsewhere; goes away."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Story:
    headline: str
    arms: dict

def story(run, language):
    return Story("Without its noise, the sampler makes nearly the same picture every time.", {a: f"{a}: a sentence about its end." for a in run.arms})

def step_sentences(run, picture, language):
    return [f"{picture} at t = {t}." for t in run.dataset["t"].values]

@dataclass(frozen=True)
class StepTable:
    head: list
    rows: list
    cells: list

def step_table(run, language):
    return StepTable(["mean","std"], [*run.arms,"right"], [[["0.1","0.2"]]*(len(run.arms)+1)]*len(run.dataset["t"]))
