// Pins the Prometheus operator, of which only the CustomResourceDefinitions are read.
module velagen.local/tools/prometheus-operator

go 1.24

require github.com/prometheus-operator/prometheus-operator v0.85.0
