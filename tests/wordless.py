"""Bad inputs that KubeVela refuses in CUE's words, not in ours: it prints the first error only, and that is another.

`velagen check` has the sentence for each of them. Strict: one that gains its sentence has to leave this list.
"""

WORDLESS = {
    "autoscale-target-0",
    "batch-of-zero",
    "canary-weight-120",
    "canary-weight-half",
    "fraction-in-resources",
    "gpu-fraction-0",
    "gpu-fraction-above-1",
    "gpu-fraction-as-text",
    "gpu-unknown-mode",
    "model-uri-with-space",
    "negative-replicas",
    "quantity-with-unknown-unit",
    "replicas-as-text",
    "scope-half-a-gpu",
    "unknown-runtime",
    "unknown-scheme",
}
