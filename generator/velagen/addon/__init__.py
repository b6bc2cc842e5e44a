"""The addon as files: written, compared, packed."""

from velagen.addon.package import Package, pack
from velagen.addon.write import render_addon, stale_diff, write_addon

__all__ = ["Package", "pack", "render_addon", "stale_diff", "write_addon"]
