"""InferenceServices that are there already, as Applications with the component kfserving."""
