"""Build the pages and the slides in every language, and check what was built.

``python docs/build.py`` leaves ``docs/_build/html``: ``en/``, ``zh/`` and ``slides/en``,
``slides/zh``. Every warning is an error. ``--fast en`` builds the English pages alone, unchecked.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import check
import notebooks

HERE = Path(__file__).parent.resolve()
HTML = HERE / "_build" / "html"
SOURCES = {"en": HERE, "zh": HERE / "zh"}
ENTRY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>diffviz</title><script>
location.replace((navigator.language.startsWith("zh") ? "zh" : "en") + "/index.html")
</script></head>
<body><p><a href="en/index.html">English</a> · <a href="zh/index.html">中文</a></p></body>
</html>
"""


def build(language: str, slides: bool = False) -> None:
    """Run Sphinx once; ends the program with its status when it fails."""
    begun = time.monotonic()
    part = Path("slides", language) if slides else Path(language)
    tags = [language, *(["slides"] if slides else [])]
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-b", "revealjs" if slides else "html", "-c", str(HERE)]
    command += [word for tag in tags for word in ("-t", tag)]
    command += ["-d", str(HERE / "_build" / "doctrees" / part), str(SOURCES[language])]
    status = subprocess.run([*command, str(HTML / part)]).returncode
    if status:
        sys.exit(status)
    print(f"   {part} in {time.monotonic() - begun:.0f} s", flush=True)


def main(words: list[str]) -> None:
    """Everything, or what comes after ``--fast``."""
    if words[:1] == ["--fast"]:
        for word in words[1:] or ["en"]:
            build(word.removeprefix("slides/"), word.startswith("slides/"))
        return
    for slides in (False, True):
        for language in SOURCES:
            build(language, slides)
    for unused in HTML.rglob("jupyter_execute"):
        shutil.rmtree(unused)
    caches = (HERE / "_build" / "cache").iterdir
    given = os.environ.get("DIFFVIZ_DOCS_CACHE")
    cache = Path(given) if given else max(caches(), key=lambda path: path.stat().st_mtime)
    notebooks.write(HTML, cache)
    (HTML / "index.html").write_text(ENTRY, encoding="utf-8")
    found = list(check.problems(HTML))
    print("\n".join(found) or "   no broken link, no deck too long")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
