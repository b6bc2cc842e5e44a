// Pins the Go build of KEDA; replace and exclude are those of github.com/kedacore/keda/v2 v2.21.0, which Go ignores in a dependency.
module velagen.local/tools/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.21.0

replace github.com/nexus-rpc/nexus-proto-annotations v0.1.0 => github.com/nexus-rpc/nexus-proto-annotations v0.1.1-0.20260629224316-835bd8d49cb4

exclude github.com/go-chi/chi/v5 v5.2.3
