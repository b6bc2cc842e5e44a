"""KubeVela definitions from JSON Schemas and Python templates."""
