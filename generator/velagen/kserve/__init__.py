"""What is KServe's: the part of its InferenceService that the component passes on, and where each of its fields is."""
