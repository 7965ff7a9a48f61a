package s3blob

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/celler/celler/blob"
)

// statusError is a server's refusal without the SDK's verbosity.
type statusError struct {
	code, message string
	status        int
	request       string // the server's name for the request
	region        string // where the server says the bucket is
	err           error
}

func (e *statusError) Error() string {
	var s strings.Builder
	if s.WriteString(e.code); e.code == "" {
		s.WriteString("error")
	}
	if e.message != "" {
		fmt.Fprintf(&s, ": %s", strings.TrimSuffix(e.message, "."))
	}
	fmt.Fprintf(&s, " (HTTP %d", e.status)
	if e.request != "" {
		fmt.Fprintf(&s, ", request %s", e.request)
	}
	s.WriteByte(')')
	return s.String()
}

func (e *statusError) Unwrap() error { return e.err }

// refusal returns what the server said, or nil if there was no answer.
func refusal(err error) *statusError {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e
	}
	resp, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || resp.Response == nil {
		return nil
	}
	e := &statusError{status: resp.HTTPStatusCode(), request: resp.ServiceRequestID(), err: err}
	e.region = resp.Response.Header.Get("X-Amz-Bucket-Region")
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		e.code, e.message = api.ErrorCode(), api.ErrorMessage()
	}
	if e.status < http.StatusMultipleChoices {
		return nil // the answer was fine until its body broke off
	}
	return e
}

// absent reports that the server said there is no such object. A 404 without
// that code may come from anything on the way and proves nothing.
func absent(err error) bool {
	e := refusal(err)
	return e != nil && e.status == http.StatusNotFound && (e.code == "NoSuchKey" || e.code == "NotFound")
}

func hasStatus(err error, status int) bool {
	e := refusal(err)
	return e != nil && e.status == status
}

// outcome wraps one of the sentinels of package blob.
func outcome(op string, key blob.Key, sentinel error) error {
	return fmt.Errorf("%s %s: %w", op, key, sentinel)
}

// fail wraps any other error: with what we know about its cause, for people.
func (b *Bucket) fail(op string, key blob.Key, err error) error {
	e := &blob.Error{Op: op, Bucket: b.name, Key: key, Err: err}
	if r := refusal(err); r != nil {
		e.Err = r
		e.Kind, e.Hint = b.classify(op, r)
		return e
	}
	e.Kind, e.Hint = b.classifyTransport(err)
	if u, ok := errors.AsType[*url.Error](err); ok {
		// What the SDK and net/http put before this repeats the operation and the key.
		e.Err = &transportError{text: u.Err.Error(), err: err}
	}
	return e
}

// transportError is the SDK's error for "no answer" without its verbosity.
type transportError struct {
	text string
	err  error
}

func (e *transportError) Error() string { return e.text }
func (e *transportError) Unwrap() error { return e.err }

const seeDocs = "see docs/buckets.md for the rights celler needs"

// classify judges an answer of the server.
func (b *Bucket) classify(op string, e *statusError) (blob.Kind, string) {
	switch e.code {
	case "AccessDenied", "Forbidden", "AllAccessDisabled":
		if op == "get" || op == "get_if" || op == "get_range" {
			return blob.KindDenied, "allow s3:GetObject and also s3:ListBucket, without which S3 denies objects that do not exist; " + seeDocs
		}
		return blob.KindDenied, fmt.Sprintf("the credentials may not %s here; %s", op, seeDocs)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidClientTokenId", "XAdminUserNotFound":
		return blob.KindDenied, "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or the profile)"
	case "RequestTimeTooSkewed", "RequestExpired":
		return blob.KindDenied, "set this machine's clock: signatures hold for 15 minutes"
	case "NoSuchBucket":
		return blob.KindNoBucket, "create the bucket, or correct its name, endpoint or path-style"
	case "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion":
		if e.region != "" {
			return blob.KindNoBucket, fmt.Sprintf("the bucket is in region %s: set region=%s", e.region, e.region)
		}
		return blob.KindNoBucket, "the bucket is elsewhere: set region and endpoint to where it is"
	case "NotImplemented", "XNotImplemented", "MethodNotAllowed":
		return blob.KindUnsupported, "this server lacks what celler needs; docs/buckets.md lists those that have it"
	case "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "ServiceUnavailable":
		return blob.KindThrottled, ""
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage":
		return blob.KindFull, "free some space, or raise the quota"
	case "RequestTimeout":
		return blob.KindUnreachable, ""
	}
	switch {
	case e.status == http.StatusTooManyRequests, e.status == http.StatusServiceUnavailable:
		return blob.KindThrottled, ""
	case e.status == http.StatusNotImplemented, e.status == http.StatusMethodNotAllowed:
		return blob.KindUnsupported, "this server lacks what celler needs; docs/buckets.md lists those that have it"
	case e.status == http.StatusInsufficientStorage:
		return blob.KindFull, "free some space, or raise the quota"
	case e.status >= http.StatusInternalServerError:
		return blob.KindUnreachable, ""
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		return blob.KindDenied, "check the credentials; " + seeDocs
	case e.status >= http.StatusMultipleChoices && e.status < http.StatusBadRequest:
		if e.region != "" {
			return blob.KindNoBucket, fmt.Sprintf("the bucket is in region %s: set region=%s", e.region, e.region)
		}
		return blob.KindNoBucket, "the server redirects: set region and endpoint to where the bucket is"
	}
	return blob.KindOther, ""
}

// classifyTransport judges an error without an answer.
func (b *Bucket) classifyTransport(err error) (blob.Kind, string) {
	if _, ok := errors.AsType[*blob.KeyError](err); ok {
		return blob.KindOther, ""
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return blob.KindUnreachable, "the server's certificate is not trusted: AWS_CA_BUNDLE names a file of certificates to trust"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return blob.KindUnreachable, fmt.Sprintf("no address for %s: check endpoint, region and path-style", e.Name)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return blob.KindOther, ""
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return blob.KindUnreachable, "the server does not speak TLS: write http:// in endpoint if that is meant"
	case errors.Is(err, syscall.ECONNREFUSED):
		return blob.KindUnreachable, "nothing listens there: check endpoint, and that the server runs"
	case strings.Contains(err.Error(), "get identity:"):
		// The SDK has no type for "none of my sources has credentials".
		return blob.KindDenied, "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
	case isTransport(err):
		return blob.KindUnreachable, ""
	}
	return blob.KindOther, ""
}

// isTransport reports that the network or a deadline ended the request.
func isTransport(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	_, isSend := errors.AsType[interface {
		error
		ConnectionError() bool
	}](err)
	return isNet || isSend || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errBroken)
}
