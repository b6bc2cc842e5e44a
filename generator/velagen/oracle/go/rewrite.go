//go:build kubevela1_11

package main

import (
	"context"
	"slices"

	pkgupgrade "github.com/kubevela/pkg/cue/upgrade"
	"github.com/oam-dev/kubevela/pkg/cue/upgrade"
)

var rewritten []string

func init() {
	// Without its cache a text is rewritten, and heard of, each time.
	upgrade.InitCompatibilityCache(context.Background(), 0)
	pkgupgrade.OnRewrite = func(fix, _ string, _ pkgupgrade.DefinitionKind, _ pkgupgrade.TemplateArea) {
		rewritten = append(rewritten, fix)
	}
}

// rewrite is what KubeVela does to a text before it evaluates it: its compatibility rewriting of older CUE, with the
// passes that are on by default. It gives the text, and the names of the passes that changed something.
func rewrite(text string) (string, []string) {
	rewritten = nil
	text, _ = upgrade.EnsureCueVersionCompatibility(text, "oracle", upgrade.ComponentKind, upgrade.TemplateAreaMain)
	return text, slices.Clone(rewritten)
}
