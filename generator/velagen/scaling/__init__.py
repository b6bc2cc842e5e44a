"""Pods that follow a load on a real cluster: the load, the record of what happened, its page, and the demo of it."""
