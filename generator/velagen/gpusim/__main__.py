"""``python -m velagen.gpusim``: the commands of ``velagen gpusim`` where nothing else of velagen is installed."""

from velagen.gpusim.command import gpusim_group

gpusim_group(prog_name="velagen gpusim")
