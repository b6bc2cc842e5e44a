"""The schema of Triton's config.pbtxt, generated: see regenerate.py."""
