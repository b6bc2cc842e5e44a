package main

import (
	"context"

	"github.com/kubevela/pkg/cue/cuex"
	"github.com/oam-dev/kubevela/pkg/schema"
)

func init() {
	// The default compiler would ask an API server for packages.
	cuex.EnableExternalPackageForDefaultCompiler = false
}

// openAPI is KubeVela's own conversion, called as its definition controllers call it: on the text as it is stored.
func openAPI(text string) ([]byte, error) {
	s, err := schema.ParsePropertiesToSchema(context.Background(), text)
	if err != nil {
		return nil, err
	}
	return s.MarshalJSON()
}
