// Pins the Go build of metrics-server; sigs.k8s.io/metrics-server v0.9.0 has no replace and no exclude.
module velagen.local/tools/metrics-server

go 1.26.4

require sigs.k8s.io/metrics-server v0.9.0
