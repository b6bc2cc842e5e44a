// Command runc-wrap starts runc with a specification that this machine can fulfil.
//
// A container engine inside a sandbox may lack capabilities that "privileged" asks for, and runc then refuses the
// whole container. The wrapper takes out of the OCI specification what its own bounding set does not hold, and the two
// things that need CAP_SYS_RESOURCE: resource limits, and an OOM score below the present one. Where nothing is lacking
// it changes nothing. Its arguments are runc's; runc is looked up on PATH.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Names by bit, as in linux/capability.h.
var names = strings.Fields(`
	CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP
	CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
	CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
	CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP
	CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
	CAP_CHECKPOINT_RESTORE`)

func main() {
	arguments := os.Args[1:]
	lacking, err := missing("/proc/self/status")
	if err == nil && len(lacking) > 0 {
		if path, whole := specification(arguments); path != "" {
			err = rewrite(path, whole, lacking)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runc-wrap:", err)
		os.Exit(1)
	}
	runc, err := exec.LookPath("runc")
	if err == nil {
		err = syscall.Exec(runc, append([]string{"runc"}, arguments...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "runc-wrap:", err)
	os.Exit(1)
}

// missing gives the capabilities that are not in the bounding set.
func missing(status string) (map[string]bool, error) {
	text, err := os.ReadFile(status)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, found := strings.CutPrefix(line, "CapBnd:"); found {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return nil, err
			}
			lacking := map[string]bool{}
			for bit, name := range names {
				if bits&(1<<bit) == 0 {
					lacking[name] = true
				}
			}
			return lacking, nil
		}
	}
	return nil, fmt.Errorf("%s has no CapBnd", status)
}

// specification gives the file that runc will read, and whether it is a whole one (create, run) or a process (exec).
func specification(arguments []string) (path string, whole bool) {
	command, bundle, process := "", ".", ""
	// Global options that take a value as the next argument.
	valued := map[string]bool{"--log": true, "--log-format": true, "--root": true, "--criu": true, "--rootless": true}
	for at := 0; at < len(arguments); at++ {
		argument := arguments[at]
		if command == "" {
			if strings.HasPrefix(argument, "-") {
				if valued[argument] {
					at++
				}
				continue
			}
			command = argument
			continue
		}
		name, value, joined := strings.Cut(argument, "=")
		if !joined && at+1 < len(arguments) {
			value = arguments[at+1]
		}
		switch name {
		case "--bundle", "-b":
			bundle = value
		case "--process", "-p":
			process = value
		}
	}
	switch command {
	case "create", "run":
		return filepath.Join(bundle, "config.json"), true
	case "exec":
		return process, false
	}
	return "", false
}

func rewrite(path string, whole bool, lacking map[string]bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Numbers stay as they are written: a device number or a limit must not pass through a float.
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	process := document
	if whole {
		process, _ = document["process"].(map[string]any)
	}
	if process == nil {
		return nil
	}
	reduce(process, lacking, "/proc/self/oom_score_adj")
	changed, err := json.Marshal(document)
	if err != nil {
		return err
	}
	information, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, changed, information.Mode().Perm())
}

func reduce(process map[string]any, lacking map[string]bool, scoreFile string) {
	sets, _ := process["capabilities"].(map[string]any)
	for key, value := range sets {
		list, _ := value.([]any)
		kept := []any{}
		for _, entry := range list {
			if name, _ := entry.(string); !lacking[name] {
				kept = append(kept, entry)
			}
		}
		sets[key] = kept
	}
	if !lacking["CAP_SYS_RESOURCE"] {
		return
	}
	delete(process, "rlimits")
	asked, isNumber := process["oomScoreAdj"].(json.Number)
	text, err := os.ReadFile(scoreFile)
	if !isNumber || err != nil {
		return
	}
	present, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if score, wrong := asked.Int64(); err == nil && wrong == nil && int(score) < present {
		process["oomScoreAdj"] = present
	}
}
