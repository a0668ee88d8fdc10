package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Nobody else is in this container.
	trialServer = "127.0.0.1:19000"
	trialLimit  = 30 * time.Second
)

// tryOnce lets a program that never ran here serve a throw-away drive before it may open the member's: one object is written, read and
// deleted. A program that passed is remembered by its hash.
func tryOnce(program string, set settings) error {
	hash, err := hashOf(program)
	if err != nil {
		return err
	}
	passed := filepath.Join(set.state, "passed")
	if before, err := os.ReadFile(passed); err == nil && string(before) == hash {
		return nil
	}
	began := time.Now()
	directory := filepath.Join(set.state, "trial")
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if err := trial(program, directory); err != nil {
		return err
	}
	log.Printf("this program passed on a throw-away drive in %.1f s", time.Since(began).Seconds())
	return os.WriteFile(passed, []byte(hash), 0o600)
}

func trial(program, directory string) error {
	who := login{"trial", rand.Text()}
	environment, err := trialEnvironment(directory, who)
	if err != nil {
		return err
	}
	server := exec.Command(program, "server", "--address", trialServer, "--console-address", "127.0.0.1:19001", filepath.Join(directory, "drive"))
	server.Env = environment
	said := &tail{}
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	client, err := connect(trialServer, who)
	for began := time.Now(); err == nil && time.Since(began) < trialLimit; time.Sleep(100 * time.Millisecond) {
		select {
		case failed := <-ended:
			return fmt.Errorf("it ended (%v): %s", failed, said)
		default:
		}
		if !answers(trialServer) {
			continue
		}
		if failed := canary(client, "trial"); failed != nil {
			said.failed = failed
			continue
		}
		_ = server.Process.Kill()
		<-ended
		return nil
	}
	_ = server.Process.Kill()
	<-ended
	return errors.Join(err, said.failed, fmt.Errorf("no canary within %v: %s", trialLimit, said))
}

// trialEnvironment leaves out everything that belongs to the real server.
func trialEnvironment(directory string, who login) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(directory, "drive"), 0o700); err != nil {
		return nil, err
	}
	var environment []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "MINIO_") {
			environment = append(environment, entry)
		}
	}
	for name, content := range map[string]string{"MINIO_ROOT_USER_FILE": who.user, "MINIO_ROOT_PASSWORD_FILE": who.password} {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return nil, err
		}
		environment = append(environment, name+"="+path)
	}
	return environment, nil
}

func hashOf(program string) (string, error) {
	file, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// tail keeps the end of what a program says.
type tail struct {
	text   []byte
	failed error
}

func (t *tail) Write(text []byte) (int, error) {
	t.text = append(t.text, text...)
	if over := len(t.text) - 2000; over > 0 {
		t.text = t.text[over:]
	}
	return len(text), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.text)) }
