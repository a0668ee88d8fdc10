// Command member starts an S3 server and stands beside it: refuses a missing login, tries a new program on a drive of its own first,
// says when the member may be given requests, and takes it out before it stops. It never touches the server's drives.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes, for those who read logs.
const (
	exitUsage = 64
	exitLogin = 78
	exitTrial = 79
	exitStart = 127
)

// What the plan says, by environment. None of it begins with MINIO_, which the servers compare among each other.
type settings struct {
	// Where `/ready` is served.
	ready string
	// The server's own address.
	server string
	// A directory that outlives the container.
	state string
	// How long requests may still come after the stop was asked for.
	drain time.Duration
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC | log.Lmsgprefix)
	log.SetPrefix("member: ")
	if len(os.Args) < 2 {
		fail(exitUsage, errors.New("usage: member PROGRAM [ARGUMENT...]"))
	}
	set, err := read()
	if err != nil {
		fail(exitUsage, err)
	}
	who, err := readLogin()
	if err != nil {
		fail(exitLogin, fmt.Errorf("refused to start: %w", err))
	}
	program, err := exec.LookPath(os.Args[1])
	if err != nil {
		fail(exitStart, err)
	}
	if err := tryOnce(program, set); err != nil {
		fail(exitTrial, fmt.Errorf("refused to start: this program failed on a throw-away drive: %w", err))
	}
	os.Exit(run(program, set, who))
}

func read() (settings, error) {
	drain, err := time.ParseDuration(os.Getenv("MUSTER_DRAIN"))
	set := settings{
		ready: os.Getenv("MUSTER_READY"), server: os.Getenv("MUSTER_SERVER"), state: os.Getenv("MUSTER_STATE"), drain: drain,
	}
	if err != nil || set.ready == "" || set.server == "" || set.state == "" {
		return set, errors.New("MUSTER_READY, MUSTER_SERVER, MUSTER_STATE and MUSTER_DRAIN must be set")
	}
	return set, nil
}

// run starts the server and ends with it; its exit code.
func run(program string, set settings, who login) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	server := exec.Command(program, os.Args[2:]...)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		log.Print(err)
		return exitStart
	}
	gate := newGate()
	go gate.serve(set.ready)
	go gate.open(set.server, who)
	go func() {
		for range signals {
			if gate.close() {
				// Those who send requests must see it first.
				time.Sleep(set.drain)
			}
			_ = server.Process.Signal(syscall.SIGTERM)
		}
	}()
	err := server.Wait()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended) && ended.ExitCode() >= 0:
		return ended.ExitCode()
	}
	log.Print(err)
	return exitStart
}

func fail(code int, err error) {
	log.Print(err)
	os.Exit(code)
}
