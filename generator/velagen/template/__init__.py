"""Templates: Python data with references, conditions and loops, checked and compiled to CUE."""
