"""Run every loop of the zoo and of its tests under the x-ray; put what it says first in a table.

    python docs/zoo_table.py

Writes the part of howto/sampler.md between the marks.
"""

import sys
from collections import Counter
from pathlib import Path

import torch

import diffviz as dv
from diffviz.files.atomic import replacing
from diffviz.identify import zoo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
T, SHAPE = 100, (16, 3, 8, 8)
START, END = "<!-- made by docs/zoo_table.py -->\n", "<!-- end -->"


def first(name, source):
    """The id of the first finding of a wrong loop, the first error of a right one."""
    kind = dv.NoiseSchedule.course if "tutorial" in name else dv.NoiseSchedule.linear
    schedule = kind(T, 1e-3, 0.1)
    torch.manual_seed(0)
    return dv.xray(zoo.sampler(source, schedule), schedule, shape=SHAPE).findings


def main():
    """Write the table."""
    from tests import cases

    found = {}
    for name, (want, source) in cases.WRONG.items():
        seen = first(name, source)
        wanted = " or ".join(f"`{one}`" for one in want.split("|"))
        found.setdefault(wanted, Counter())[f"`{seen[0].id}`" if seen else "nothing"] += 1
    for name, (_, source) in cases.RIGHT.items():
        errors = [f"`{f.id}`" for f in first(name, source) if f.severity == "error"]
        found.setdefault("nothing", Counter())[(errors or ["no error"])[0]] += 1
    lines = ["| what is wrong | loops | found first |", "| --- | --- | --- |"]
    for want, counts in found.items():
        told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        lines.append(f"| {want} | {sum(counts.values())} | {told} |")
    path = HERE / "howto/sampler.md"
    before, rest = path.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    with replacing(path) as new:
        new.write_text(before + START + "\n".join(["", *lines, "", END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
