// Runs Argo Rollouts' own analysis over traces: its Prometheus provider, its conditions, its counting of failed
// measurements and its verdict, with no cluster, no Prometheus and a clock that the trace moves.
//
// Each line of stdin is a Trace, each line of stdout an Outcome, in the same order.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"
	"unsafe"

	"github.com/argoproj/argo-rollouts/analysis"
	"github.com/argoproj/argo-rollouts/metric"
	provider "github.com/argoproj/argo-rollouts/metricproviders/prometheus"
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/utils/record"
	timeutil "github.com/argoproj/argo-rollouts/utils/time"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Trace is what Prometheus says at each second that is listed, and the metrics of an AnalysisTemplate that ask for it.
type Trace struct {
	Metrics []v1alpha1.Metric `json:"metrics"`
	// Seconds since the start, rising.
	At []int64 `json:"at"`
	// Of each metric by its query the answer at each of these: null where the answer is empty.
	Answers map[string][]*float64 `json:"answers"`
}

// Outcome is the analysis' phase when it ended, or Running, and the last second that was looked at.
type Outcome struct {
	Phase   v1alpha1.AnalysisPhase `json:"phase"`
	Message string                 `json:"message"`
	At      int64                  `json:"at"`
}

// reconcile is what Argo's controller does with an AnalysisRun (analysis/analysis.go).
//
//go:linkname reconcile github.com/argoproj/argo-rollouts/analysis.(*Controller).reconcileAnalysisRun
func reconcile(c *analysis.Controller, run *v1alpha1.AnalysisRun) *v1alpha1.AnalysisRun

// prometheus answers from a trace; of the API the provider calls Query alone.
type prometheus struct {
	v1.API
	trace *Trace
	at    int
}

func (p *prometheus) Query(_ context.Context, query string, _ time.Time, _ ...v1.Option) (model.Value, v1.Warnings, error) {
	value := p.trace.Answers[query][p.at]
	if value == nil {
		return model.Vector{}, nil, nil
	}
	return model.Vector{{Value: model.SampleValue(*value)}}, nil, nil
}

// set gives a field of the controller that only Argo's own tests can reach a value.
func set(c *analysis.Controller, name string, value any) {
	field := reflect.ValueOf(c).Elem().FieldByName(name)
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(value))
}

func outcome(trace *Trace) Outcome {
	source := &prometheus{trace: trace}
	controller := &analysis.Controller{}
	set(controller, "newProvider", func(log logrus.Entry, _ string, m v1alpha1.Metric) (metric.Provider, error) {
		return provider.NewPrometheusProvider(source, log, m)
	})
	set(controller, "enqueueAnalysisAfter", func(any, time.Duration) {})
	set(controller, "recorder", record.NewFakeEventRecorder())
	run := &v1alpha1.AnalysisRun{ObjectMeta: metav1.ObjectMeta{Name: "trace", Namespace: "default"}}
	run.Spec.Metrics = trace.Metrics
	for at, second := range trace.At {
		source.at = at
		now := time.Unix(1_700_000_000+second, 0)
		timeutil.SetNowTimeFunc(func() time.Time { return now })
		run = reconcile(controller, run)
		if run.Status.Phase.Completed() {
			return Outcome{run.Status.Phase, run.Status.Message, second}
		}
	}
	return Outcome{run.Status.Phase, run.Status.Message, trace.At[len(trace.At)-1]}
}

func main() {
	logrus.SetOutput(io.Discard)
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var trace Trace
		if err := in.Decode(&trace); err == io.EOF {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "not a trace:", err)
			os.Exit(1)
		}
		if len(trace.At) == 0 {
			fmt.Fprintln(os.Stderr, "a trace needs one second at least")
			os.Exit(1)
		}
		if err := out.Encode(outcome(&trace)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
