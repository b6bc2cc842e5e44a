// Command cue-oracle answers questions about CUE text on stdin, one JSON object a line, one JSON answer a line.
//
// It stays warm between questions, because a process start costs more than an evaluation. A question that kills or
// hangs the process (recursion under parameter does) is the caller's to notice: the Python side sets a time limit,
// starts a new process and reports the crash as the verdict of that question.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	cueerrors "cuelang.org/go/cue/errors"
	"cuelang.org/go/encoding/jsonschema"
)

// request is one question. Text is CUE; Values are JSON documents tried against it one by one.
type request struct {
	Op     string            `json:"op"`
	Text   string            `json:"text"`
	Path   string            `json:"path"`
	Values []json.RawMessage `json:"values"`
	Extra  string            `json:"extra"`
}

// verdict is the answer for one value.
type verdict struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

type response struct {
	OK       bool            `json:"ok"`
	Error    string          `json:"error,omitempty"`
	Verdicts []verdict       `json:"verdicts,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Text     string          `json:"text,omitempty"`
	// Fixes are the passes of KubeVela's rewriting that changed the text.
	Fixes []string `json:"fixes,omitempty"`
}

func message(err error) string {
	var lines []string
	for _, e := range cueerrors.Errors(err) {
		lines = append(lines, e.Error())
	}
	if len(lines) == 0 {
		return err.Error()
	}
	return strings.Join(lines, "\n")
}

func judge(err error) verdict {
	if err != nil {
		return verdict{Error: message(err)}
	}
	return verdict{OK: true}
}

// vet is `cue vet -c`: unify the data with the schema's file, then demand concrete values.
func vet(req request) response {
	ctx := cuecontext.New()
	schema := ctx.CompileString(req.Text)
	if err := schema.Err(); err != nil && req.Extra != "lenient" {
		return response{Error: message(err)}
	}
	var out []verdict
	for _, value := range req.Values {
		data := ctx.CompileBytes([]byte(req.Path + ": " + string(value)))
		if err := data.Err(); err != nil {
			out = append(out, judge(err))
			continue
		}
		out = append(out, judge(schema.Unify(data).Validate(cue.Concrete(true))))
	}
	return response{OK: true, Verdicts: out}
}

// render is what KubeVela does: template text, rewritten, then `parameter: {json}` and the context, compiled as one
// text and validated without asking for concrete values.
func render(req request) response {
	template, _ := rewrite(req.Text)
	var out []verdict
	for _, value := range req.Values {
		text := strings.Join([]string{template, req.Path + ": " + string(value), req.Extra}, "\n")
		v := cuecontext.New().CompileString(text)
		if err := v.Err(); err != nil {
			out = append(out, judge(err))
			continue
		}
		out = append(out, judge(v.Validate()))
	}
	return response{OK: true, Verdicts: out}
}

// eval exports one field of a text, for health and status rules.
func eval(req request) response {
	text, _ := rewrite(req.Text)
	v := cuecontext.New().CompileString(text + "\n" + req.Extra)
	if req.Path != "" {
		v = v.LookupPath(cue.ParsePath(req.Path))
	}
	if err := v.Err(); err != nil {
		return response{Error: message(err)}
	}
	b, err := v.MarshalJSON()
	if err != nil {
		return response{Error: message(err)}
	}
	return response{OK: true, Result: b}
}

// compile is what the admission webhook does with a template: rewrite it, compile it alone and validate it.
func compile(req request) response {
	text, _ := rewrite(req.Text)
	v := cuecontext.New().CompileString(text)
	if err := v.Err(); err != nil {
		return response{Error: message(err)}
	}
	if err := v.Validate(); err != nil {
		return response{Error: message(err)}
	}
	return response{OK: true}
}

// importSchema is cue's own JSON Schema importer, the peer that the conformance table is measured beside.
func importSchema(req request) response {
	ctx := cuecontext.New()
	v := ctx.CompileString(req.Text)
	if err := v.Err(); err != nil {
		return response{Error: message(err)}
	}
	file, err := jsonschema.Extract(v, &jsonschema.Config{})
	if err != nil {
		return response{Error: message(err)}
	}
	schema := ctx.BuildFile(file)
	if err := schema.Err(); err != nil {
		return response{Error: message(err)}
	}
	var out []verdict
	for _, value := range req.Values {
		data := ctx.CompileBytes(value)
		out = append(out, judge(schema.Unify(data).Validate(cue.Concrete(true))))
	}
	return response{OK: true, Verdicts: out}
}

// version says what the binary is linked with: "cue v0.9.2, kubevela v1.10.9".
func version() string {
	build, _ := debug.ReadBuildInfo()
	var parts []string
	for _, module := range build.Deps {
		switch module.Path {
		case "cuelang.org/go":
			parts = append(parts, "cue "+module.Version)
		case "github.com/oam-dev/kubevela":
			parts = append(parts, "kubevela "+module.Version)
		}
	}
	return strings.Join(parts, ", ")
}

func answer(req request) (res response) {
	defer func() {
		if r := recover(); r != nil {
			res = response{Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	switch req.Op {
	case "vet":
		return vet(req)
	case "render":
		return render(req)
	case "eval":
		return eval(req)
	case "compile":
		return compile(req)
	case "import":
		return importSchema(req)
	case "openapi":
		b, err := openAPI(req.Text)
		if err != nil {
			return response{Error: message(err)}
		}
		return response{OK: true, Result: b}
	case "rewrite":
		text, fixes := rewrite(req.Text)
		return response{OK: true, Text: text, Fixes: fixes}
	case "version":
		return response{OK: true, Text: version()}
	}
	return response{Error: "unknown op " + req.Op}
}

func main() {
	// A runaway recursion then ends in seconds and not after a gigabyte of stack.
	debug.SetMaxStack(256 << 20)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var req request
			res := response{}
			if bad := json.Unmarshal(line, &req); bad != nil {
				res.Error = bad.Error()
			} else {
				res = answer(req)
			}
			b, bad := json.Marshal(res)
			if bad != nil {
				b, _ = json.Marshal(response{Error: bad.Error()})
			}
			out.Write(append(b, '\n'))
			out.Flush()
		}
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				os.Exit(1)
			}
			return
		}
	}
}
