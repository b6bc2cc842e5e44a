"""The rules of a rollout by steps: what follows when (transitions), and what a check says (verdict)."""
