//go:build !plain

package main

import (
	"context"

	"cuelang.org/go/encoding/jsonschema"
	"github.com/kubevela/pkg/cue/cuex"
	"github.com/oam-dev/kubevela/pkg/schema"
)

const version = "cue 0.9.2, kubevela 1.10.9"

func init() {
	// The default compiler would ask an API server for packages.
	cuex.EnableExternalPackageForDefaultCompiler = false
}

func importConfig() *jsonschema.Config { return &jsonschema.Config{} }

// openAPI is KubeVela's own conversion, called as its definition controllers call it.
func openAPI(text string) ([]byte, error) {
	s, err := schema.ParsePropertiesToSchema(context.Background(), text)
	if err != nil {
		return nil, err
	}
	return s.MarshalJSON()
}
