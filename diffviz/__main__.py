"""``python -m diffviz`` is the command line."""

from diffviz.cli import main

main()
