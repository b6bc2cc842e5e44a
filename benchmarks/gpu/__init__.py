"""Two models on one card."""
