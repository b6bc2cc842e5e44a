// Pins the Go build of kwok; replace and exclude are those of sigs.k8s.io/kwok v0.8.0, which Go ignores in a dependency.
module velagen.local/tools/kwok

go 1.26.0

require sigs.k8s.io/kwok v0.8.0

tool sigs.k8s.io/kwok/cmd/kwok
