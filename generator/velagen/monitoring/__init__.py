"""What a model's series are called: kfserving's own, beside the engine. docs/monitoring.md says how they are used."""
