"""``python -m velagen.cli``: the velagen command without its script."""

from velagen.cli import main

main()
