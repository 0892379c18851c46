"""How the pages and the slides are built; ``python docs/build.py`` builds all of them.

One configuration, two sources: English pages are ``docs/PATH.md``, Chinese ones
``docs/zh/PATH.md``. Tag ``zh`` says which, and with the builder ``revealjs`` only the lessons are
read, as slides.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path

from plotly.offline import get_plotlyjs

sys.path.insert(0, str(Path(__file__).parent))
import chinese_findings
import gallery_pages

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parent
BUILT = HERE / "_build"
CHINESE = tags.has("zh")  # noqa: F821
SLIDES = tags.has("slides")  # noqa: F821


def _sources() -> str:
    """What the output of a cell depends on besides the cell."""
    digest = sha256()
    folders = ("diffviz", "weights", "docs/gallery")
    files = [p for folder in folders for p in (ROOT / folder).rglob("*")]
    files += [HERE / "_ext" / "lesson.py", HERE / "gallery_pages.py", HERE / "zh" / "gallery.toml"]
    for path in sorted(files):
        if path.suffix in (".py", ".toml", ".safetensors", ".nc"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


# Cells run once: both languages and the slides find what they printed in this cache. Their
# kernel finds diffviz, and the module `lesson`, by the path that it inherits.
CACHE = Path(os.environ.setdefault("DIFFVIZ_DOCS_CACHE", str(BUILT / "cache" / _sources())))
CACHE.mkdir(parents=True, exist_ok=True)
sys.path.insert(0, str(HERE / "_ext"))
chinese_findings.write(HERE / "zh" / "findings")
gallery_pages.write("zh" if CHINESE else "en", CACHE / "gallery")
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), str(HERE / "_ext"), os.environ.get("PYTHONPATH", "")]
)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A kernel of this machine may talk over TCP, and need not warn of it.
profile = BUILT / "ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)

STATIC = BUILT / "static"
STATIC.mkdir(parents=True, exist_ok=True)
if not (STATIC / "plotly.min.js").exists():
    (STATIC / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")

project = "diffviz"
author = "the diffviz authors"
language = "zh_CN" if CHINESE else "en"
extensions = ["myst_nb", "sphinx_design", "sphinx_copybutton", "course_pages", "chinese_search"]
extensions += ["live_plane"]
extensions += ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
exclude_patterns = ["_build", "_ext", "_static", "_templates", "images", "zh", "**/README.md"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "cache"
nb_execution_cache_path = str(CACHE)
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = -1  # none: on a busy machine a cell is slow, and not wrong
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # and a warning ends the build
nb_code_prompt_show = "显示代码" if CHINESE else "Show the code"
nb_code_prompt_hide = "隐藏代码" if CHINESE else "Hide the code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "sphinx_book_theme"
html_title = "diffviz"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", "_build/static"]
html_css_files = ["pages.css"]
html_js_files = [("plotly.min.js", {"defer": "defer"}), ("pictures.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "article_header_end": ["switch", "article-header-buttons"],
    "extra_footer": "",
}

if SLIDES:
    extensions.append("sphinx_revealjs")
    extensions.remove("sphinx_copybutton")
    include_patterns = ["lessons/*.md"]
    root_doc = "lessons/index"
    nb_mime_priority_overrides = [("revealjs", "text/html", 0), ("revealjs", "text/plain", 90)]
    revealjs_html_theme = "revealjs-simple"
    revealjs_style_theme = "white"
    revealjs_static_path = html_static_path
    revealjs_css_files = ["slides.css"]
    revealjs_js_files = html_js_files
    revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
    revealjs_script_conf = {
        "width": 1280,
        "height": 720,
        "margin": 0,
        "center": False,
        "hash": True,
        "controls": True,
        "progress": True,
        "slideNumber": "c/t",
        "transition": "none",
        "backgroundTransition": "none",
        "navigationMode": "linear",
        "overview": True,
        "hideInactiveCursor": False,
    }
