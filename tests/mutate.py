"""Mutation testing of a fixed sample: ``python -m tests.mutate [PATTERN]`` (`make mutate`).

mutmut (``[tool.mutmut]`` in pyproject.toml) changes one place of a function and runs the tests
that call it. One mutant of each function is taken, always the same one while the function stays as
it is. The rate and the survivors are printed, each as a diff.
"""

import fnmatch
import multiprocessing
import random
import subprocess
import sys
import time
import tomllib
from pathlib import Path

SEED = 1
CONFIG = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]


def sample(pattern: str) -> list[str]:
    """One mutant of each function, by its name in mutmut."""
    paths = sorted(path for p in CONFIG["only_mutate"] for path in Path().glob(f"{p}.py"))
    with multiprocessing.Pool(2) as pool:
        chosen = [name for names in pool.imap(_one_each, paths, 1) for name in names]
    return [name for name in chosen if fnmatch.fnmatch(name, pattern)]


def _one_each(path: Path) -> list[str]:
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    functions: dict[str, list[str]] = {}
    for name in mutate_file_contents(str(path), path.read_text("utf-8")).mutant_names:
        functions.setdefault(name.partition("__mutmut_")[0], []).append(name)
    return [
        get_mutant_name(path, random.Random(f"{SEED} {path} {function}").choice(names))
        for function, names in functions.items()
    ]


def main(pattern: str = "*") -> int:
    """Run the sample and say what lives."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    begun, names = time.monotonic(), sample(pattern)
    tool = Path(sys.executable).with_name("mutmut")
    code = subprocess.run([tool, "run", "--max-children", "2", *names], check=False).returncode
    if code:
        return code
    counts: dict[str, list[int]] = {}
    for path in sorted(Path("diffviz").rglob("*.py")):
        data = SourceFileMutationData(path=path)
        data.load()
        for name in set(names) & set(data.exit_code_by_key):
            status = status_by_exit_code[data.exit_code_by_key[name]]
            died = status not in ("survived", "no tests", "skipped", "not checked")
            counts.setdefault(path.parts[1], [0, 0])
            counts[path.parts[1]][0] += died
            counts[path.parts[1]][1] += 1
            if not died:
                print(f"\n{name}: {status}\n{get_diff_for_mutant(name, path=path)}")
    counts["together"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    for package, (died, all_) in counts.items():
        print(f"{package}: {died} of {all_} killed, {died / all_:.0%}")
    print(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
