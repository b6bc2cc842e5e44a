// Pins the Go build of prometheus; github.com/prometheus/prometheus v0.316.0 has no replace and no exclude.
module velagen.local/tools/prometheus

go 1.26.7

require github.com/prometheus/prometheus v0.316.0
