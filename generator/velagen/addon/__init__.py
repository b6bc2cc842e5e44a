"""The addon as files: written, compared, packed."""
