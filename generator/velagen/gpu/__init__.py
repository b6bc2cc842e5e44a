"""GPUs that models share: what the trait gpu-share asks for, and what nodes need so that there is a place for it."""
