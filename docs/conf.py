"""How the pages are built."""

project = "diffviz"
author = "the diffviz authors"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
html_title = "diffviz"
exclude_patterns = ["_build"]
