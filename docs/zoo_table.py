"""Run every loop of the zoo of the tests under the x-ray, and put what it says first in a table.

    python docs/zoo_table.py

Writes the part of howto/sampler.md between the marks.
"""

import sys
from collections import Counter
from pathlib import Path

import torch

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.files.atomic import replacing
from diffviz.identify.xray import xray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
T, SEEDS, SHAPE = 100, 3, (16, 3, 8, 8)
START, END = "<!-- made by docs/zoo_table.py -->\n", "<!-- end -->"


def findings(name, make, seed):
    """(id, severity) of every finding, the first first."""
    kind = NoiseSchedule.course if "tutorial" in name else NoiseSchedule.linear
    schedule = kind(T)
    torch.manual_seed(seed)
    return [
        (finding.id, finding.severity)
        for finding in xray(make(schedule, SHAPE), schedule, seed=seed).findings
    ]


def main():
    """Write the table."""
    from tests import zoo

    found, loops = {}, Counter()
    for name, (want, make) in zoo.FAULTY.items():
        loops[want] += 1
        for seed in range(SEEDS):
            seen = findings(name, make, seed)
            found.setdefault(want, Counter())[seen[0][0] if seen else "nothing"] += 1
    for name, (_, make) in zoo.CORRECT.items():
        loops["nothing"] += 1
        for seed in range(SEEDS):
            errors = [one for one, severity in findings(name, make, seed) if severity == "error"]
            found.setdefault("nothing", Counter())[errors[0] if errors else "nothing"] += 1
    lines = ["| what is wrong | loops | found first |", "| --- | --- | --- |"]
    for want, counts in found.items():
        told = ", ".join(f"{_word(name)} {count}" for name, count in counts.most_common())
        lines.append(f"| {_word(want)} | {loops[want]} | {told} |")
    path = HERE / "howto/sampler.md"
    before, rest = path.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    with replacing(path) as new:
        new.write_text(before + START + "\n".join(["", *lines, "", END]) + after, encoding="utf-8")


def _word(name):
    return name if name == "nothing" else f"`{name}`"


if __name__ == "__main__":
    main()
