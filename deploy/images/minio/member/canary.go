package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// The canaries of the agents lie there too.
	bucket = "muster-canary"
	// Longest for all of one canary.
	canaryLimit = 3 * time.Second
)

// canary writes, reads, compares and deletes one object through one server.
func canary(client *minio.Client, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), canaryLimit)
	defer cancel()
	content := []byte(fmt.Sprintf("%s %d", key, time.Now().UnixNano()))
	put := func() error {
		_, err := client.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
		return err
	}
	err := put()
	if minio.ToErrorResponse(err).Code == "NoSuchBucket" {
		if err := client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil &&
			minio.ToErrorResponse(err).Code != "BucketAlreadyOwnedByYou" {
			return fmt.Errorf("bucket: %w", err)
		}
		err = put()
	}
	if err != nil {
		return fmt.Errorf("PUT: %w", err)
	}
	object, err := client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return fmt.Errorf("GET: %w", err)
	}
	defer object.Close()
	back, err := io.ReadAll(io.LimitReader(object, int64(len(content))+1))
	if err != nil {
		return fmt.Errorf("GET: %w", err)
	}
	if !bytes.Equal(back, content) {
		return errors.New("GET: other content than was written")
	}
	if err := client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("DELETE: %w", err)
	}
	return nil
}

func connect(server string, who login) (*minio.Client, error) {
	return minio.New(server, &minio.Options{
		Creds: credentials.NewStaticV4(who.user, who.password, ""), Region: "us-east-1", MaxRetries: 1,
	})
}

// answers says whether the server's port is open.
func answers(server string) bool {
	connection, err := net.DialTimeout("tcp", server, time.Second)
	if err == nil {
		connection.Close()
	}
	return err == nil
}
