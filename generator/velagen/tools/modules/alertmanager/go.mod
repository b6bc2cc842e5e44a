// Pins the Go build of alertmanager; github.com/prometheus/alertmanager v0.31.0 has no replace and no exclude.
module velagen.local/tools/alertmanager

go 1.24.0

require github.com/prometheus/alertmanager v0.31.0
