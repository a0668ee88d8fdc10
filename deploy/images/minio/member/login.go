package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// What a server that was told no login takes.
const known = "minioadmin"

// More than any user name or password has, in bytes.
const longest = 4096

type login struct {
	user, password string
}

// readLogin reads the files that the environment names. A server whose files are missing comes up with the login that everybody knows,
// and only prints a warning.
func readLogin() (login, error) {
	user, err := secret("MINIO_ROOT_USER_FILE")
	if err != nil {
		return login{}, err
	}
	password, err := secret("MINIO_ROOT_PASSWORD_FILE")
	return login{user, password}, err
}

func secret(variable string) (string, error) {
	path := os.Getenv(variable)
	if path == "" {
		return "", fmt.Errorf("%s names no file", variable)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, longest))
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return "", fmt.Errorf("%s: %s is empty", variable, path)
	case string(text) == known:
		return "", fmt.Errorf("%s: %s holds the login that everybody knows", variable, path)
	}
	return string(text), nil
}
