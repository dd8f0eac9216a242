package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"sealfleet/internal/phases"
)

// S3Options say how an object store is reached. What it is opened with is not among them:
// the environment has it (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or MINIO_ACCESS_KEY
// and MINIO_SECRET_KEY), or a file of the AWS format, and no request, event or log does.
type S3Options struct {
	Endpoint    string `json:"endpoint,omitempty"`    // https://host:port; empty: AWS_ENDPOINT_URL, or Amazon's
	Region      string `json:"region,omitempty"`      // empty: AWS_REGION, or asked for
	Credentials string `json:"credentials,omitempty"` // path of an AWS credentials file
}

// Set sets an option by its name in STORAGE_NODES.
func (o *S3Options) Set(key, value string) error {
	switch key {
	case "endpoint":
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return errors.New("write https://host:port, without a path and without credentials")
		}
		o.Endpoint = value
	case "region":
		o.Region = value
	case "credentials":
		if !filepath.IsAbs(value) {
			return errors.New("the credentials' file must be an absolute path")
		}
		o.Credentials = value
	default:
		return fmt.Errorf("unknown option %q", key)
	}
	return nil
}

const s3Scheme = "s3://"

// IsS3 tells whether a storage node's address is that of an object store.
func IsS3(addr string) bool { return strings.HasPrefix(addr, s3Scheme) }

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixName = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
)

// CheckS3 refuses an address that is not s3://bucket or s3://bucket/prefix.
func CheckS3(addr string) error {
	_, _, err := splitS3(addr)
	return err
}

func splitS3(addr string) (bucket, prefix string, err error) {
	bucket, prefix, _ = strings.Cut(strings.TrimPrefix(addr, s3Scheme), "/")
	prefix = strings.Trim(prefix, "/")
	if !IsS3(addr) || !bucketName.MatchString(bucket) || prefix != "" && !prefixName.MatchString(prefix) {
		return "", "", fmt.Errorf("%q is not of the form s3://bucket/prefix", addr)
	}
	return bucket, prefix, nil
}

// bucket is an object store, opened.
type bucket struct {
	core         *minio.Core
	name, prefix string
}

// openS3 opens an object store. Nothing is sent yet.
func openS3(addr string, o S3Options) (*bucket, error) {
	name, prefix, err := splitS3(addr)
	if err != nil {
		return nil, err
	}
	endpoint := o.Endpoint
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		if endpoint == "" {
			endpoint = os.Getenv(name)
		}
	}
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil, errors.New("the object store's endpoint is no address: write endpoint=https://host:port behind it in STORAGE_NODES")
	}
	region := o.Region
	if region == "" {
		region = os.Getenv("AWS_REGION")
	}
	creds := []credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}}
	if o.Credentials != "" {
		creds = []credentials.Provider{&credentials.FileAWSCredentials{Filename: o.Credentials}}
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewChainCredentials(creds), Secure: u.Scheme == "https", Region: region, MaxRetries: 4,
	})
	if err != nil {
		return nil, err
	}
	return &bucket{core, name, prefix}, nil
}

func (b *bucket) key(name string) string { return path.Join(b.prefix, filepath.ToSlash(name)) }

// s3Fault gives an object store's error its code and class.
func s3Fault(err error) error {
	var fault *Fault
	var answer minio.ErrorResponse
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault):
		return err
	case errors.As(err, &answer):
		switch answer.Code {
		case "NoSuchKey":
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem":
			return &Fault{Code: "not_permitted", Class: phases.Retryable, Err: fmt.Errorf("%w: look at the credentials and the bucket's policy", err)}
		case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage":
			return &Fault{Code: "no_space", Class: phases.Transient, Err: err}
		case "NoSuchBucket":
			return &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("%w: make the bucket", err)}
		}
		if answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests {
			return &Fault{Code: "storage_away", Class: phases.Transient, Err: err}
		}
		if answer.StatusCode == http.StatusNotFound && answer.Code == "" {
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("the object store cannot be reached: %w", err)}
	}
	return err
}
