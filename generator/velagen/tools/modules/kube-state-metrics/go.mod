// Pins the Go build of kube-state-metrics; k8s.io/kube-state-metrics/v2 v2.18.0 has no replace and no exclude.
module velagen.local/tools/kube-state-metrics

go 1.24.5

require k8s.io/kube-state-metrics/v2 v2.18.0
