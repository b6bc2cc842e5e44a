//go:build plain

package main

import (
	"encoding/json"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/encoding/jsonschema"
	"cuelang.org/go/encoding/openapi"
)

const version = "plain"

func importConfig() *jsonschema.Config { return &jsonschema.Config{} }

// openAPI follows KubeVela's road (keep parameter alone, as #parameter, expand references) with CUE's library,
// for CUE versions that no KubeVela release carries yet.
func openAPI(text string) ([]byte, error) {
	ctx := cuecontext.New()
	v := ctx.CompileString(text + "\ncontext: {\n\tname: string\n\t...\n}\n")
	if err := v.Err(); err != nil {
		return nil, err
	}
	parameter := v.LookupPath(cue.ParsePath("parameter"))
	if parameter.IncompleteKind() == cue.BottomKind {
		return []byte("{}"), nil
	}
	only := ctx.CompileString("{}").FillPath(cue.MakePath(cue.Def("parameter")), parameter)
	b, err := openapi.Gen(only, &openapi.Config{ExpandReferences: true})
	if err != nil {
		return nil, err
	}
	var document struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(b, &document); err != nil {
		return nil, err
	}
	return document.Components.Schemas["parameter"], nil
}
