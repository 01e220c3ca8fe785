// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	// pageSize is how many objects kube-apiserver is asked for at once: a whole page of an
	// answer.
	pageSize = "1000"
	// maxObject bounds what is read of an answer that is not a list.
	maxObject = 4 << 20
	// maxWarnings is how many warnings of kube-apiserver are passed on.
	maxWarnings = 8

	headerWarning = "Warning"
)

// kube asks kube-apiserver, each time with the token of the caller: it has no credentials.
type kube struct {
	base   *url.URL
	client *http.Client
}

// newKube uses the address of config, and how to trust it. Credentials in it are left out.
func newKube(config *rest.Config) (*kube, error) {
	config = rest.AnonymousClientConfig(config)
	// Within a cluster compression costs more time than it saves.
	config.DisableCompression = true
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading the address of the API server: %w", err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	return &kube{base: base, client: &http.Client{
		Transport: transport,
		// A token must go nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// target is what a request to kube-apiserver is for.
type target struct {
	method string
	// path has the elements of the path, each as it is.
	path        []string
	query       url.Values
	contentType string
	body        []byte
	// accept is the form of the answer, JSON if it is "".
	accept string
}

// The forms of a list that have less in them.
const (
	acceptTable    = "application/json;as=Table;g=meta.k8s.io;v=v1"
	acceptMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

func tenantServers(namespace string) []string {
	return collection(tenantv1alpha1.SchemeGroupVersion.Group, tenantv1alpha1.SchemeGroupVersion.Version, namespace, "servers")
}

func computeServers(namespace string) []string {
	return collection(computev1alpha1.SchemeGroupVersion.Group, computev1alpha1.SchemeGroupVersion.Version, namespace, "servers")
}

func computeServices() []string {
	return collection(computev1alpha1.SchemeGroupVersion.Group, computev1alpha1.SchemeGroupVersion.Version, "", "computeservices")
}

func leases(namespace string) []string {
	return collection("coordination.k8s.io", "v1", namespace, "leases")
}

// collection is the path of all objects of a kind in a namespace, or in all if it is "".
func collection(group, version, namespace, resource string) []string {
	path := []string{"apis", group, version}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	return append(path, resource)
}

// refusal is an answer of kube-apiserver that is no success. What it says is not passed on
// to clients: it names the caller.
type refusal struct {
	code   int
	status metav1.Status
}

// Error implements error.
func (r *refusal) Error() string {
	return fmt.Sprintf("kube-apiserver answered %d (%s)", r.code, r.status.Reason)
}

// refused reports whether err is an answer with this code.
func refused(err error, code int) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == code
}

// send returns kube-apiserver's answer, whose body the caller closes.
func (k *kube) send(ctx context.Context, t token, to target) (*http.Response, error) {
	address := *k.base
	escaped := make([]string, len(to.path))
	for i, element := range to.path {
		escaped[i] = url.PathEscape(element)
	}
	base := strings.TrimSuffix(address.Path, "/")
	address.RawPath = base + "/" + strings.Join(escaped, "/")
	address.Path = base + "/" + strings.Join(to.path, "/")
	address.RawQuery = to.query.Encode()
	method := to.method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, address.String(), bytes.NewReader(to.body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+t.secret)
	request.Header.Set("Accept", cmp.Or(to.accept, contentTypeJSON))
	if to.contentType != "" {
		request.Header.Set("Content-Type", to.contentType)
	}
	response, err := k.client.Do(request)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // The URL names what a client has asked for.
	}
	if err != nil {
		return nil, fmt.Errorf("asking kube-apiserver: %w", err)
	}
	if response.StatusCode >= http.StatusOK && response.StatusCode < http.StatusMultipleChoices {
		return response, nil
	}
	defer drain(response)
	refusal := &refusal{code: response.StatusCode}
	if content, err := io.ReadAll(io.LimitReader(response.Body, maxObject)); err == nil {
		_ = json.Unmarshal(content, &refusal.status) // Whatever it is, its code says most.
	}
	return nil, refusal
}

// drain lets the connection be used again, if not much is left to read.
func drain(response *http.Response) {
	_, _ = io.CopyN(io.Discard, response.Body, 16<<10)
	_ = response.Body.Close()
}

// read decodes one object into out.
func (k *kube) read(ctx context.Context, t token, to target, out any) (http.Header, error) {
	response, err := k.send(ctx, t, to)
	if err != nil {
		return nil, err
	}
	defer drain(response)
	if err := json.NewDecoder(io.LimitReader(response.Body, maxObject)).Decode(out); err != nil {
		return nil, fmt.Errorf("reading kube-apiserver's answer: %w", err)
	}
	return response.Header, nil
}

// errEnough ends a walk without an error.
var errEnough = errors.New("enough")

// walk calls each for each object of a list, as it arrives, so that no more than one is
// held. begun, if it is set, is called when the first answer has come and is no error. each
// may return errEnough.
func walk[T any](ctx context.Context, k *kube, t token, to target, begun func(http.Header), each func(*T) error) error {
	return k.pages(ctx, t, to, begun, func(body io.Reader) (string, error) { return decodeList(body, each) })
}

// pages reads a list page by page; decode returns by what to continue it.
func (k *kube) pages(ctx context.Context, t token, to target, begun func(http.Header), decode func(io.Reader) (string, error)) error {
	parameters := url.Values{"limit": {pageSize}}
	maps.Copy(parameters, to.query)
	to.query = parameters
	for {
		response, err := k.send(ctx, t, to)
		if err != nil {
			return err
		}
		if begun != nil {
			begun(response.Header)
			begun = nil
		}
		next, err := decode(response.Body)
		if errors.Is(err, errEnough) {
			_ = response.Body.Close() // The rest may be long.
			return nil
		}
		drain(response)
		if err != nil {
			return err
		}
		if next == "" {
			return nil
		}
		parameters.Set("continue", next)
	}
}

// decodeList calls each for the items of a list, and returns by what to continue it.
func decodeList[T any](body io.Reader, each func(*T) error) (next string, err error) {
	return decodeFields(body, map[string]func(*json.Decoder) error{
		"items": func(decoder *json.Decoder) error { return decodeItems(decoder, each) },
	})
}

// decodeTable calls each for the rows of a table, with what is in the columns.
func decodeTable(body io.Reader, columns []string, each func(cells []string) error) (next string, err error) {
	at := make([]int, len(columns))
	return decodeFields(body, map[string]func(*json.Decoder) error{
		"columnDefinitions": func(decoder *json.Decoder) error {
			var definitions []metav1.TableColumnDefinition
			if err := decoder.Decode(&definitions); err != nil {
				return fmt.Errorf("reading a table: %w", err)
			}
			for i, column := range columns {
				at[i] = slices.IndexFunc(definitions, func(d metav1.TableColumnDefinition) bool { return d.Name == column })
				if at[i] < 0 {
					return fmt.Errorf("reading a table: it has no column %s", column)
				}
			}
			return nil
		},
		"rows": func(decoder *json.Decoder) error {
			cells := make([]string, len(columns))
			return decodeItems(decoder, func(row *struct {
				Cells []any `json:"cells"`
			}) error {
				for i := range columns {
					if at[i] >= len(row.Cells) {
						return errors.New("reading a table: a row has too few cells")
					}
					cells[i], _ = row.Cells[at[i]].(string) // null is no text.
				}
				return each(cells)
			})
		},
	})
}

// decodeFields reads a list, of which read reads some fields, and returns by what to continue
// it.
func decodeFields(body io.Reader, read map[string]func(*json.Decoder) error) (next string, err error) {
	decoder := json.NewDecoder(body)
	if err := expect(decoder, json.Delim('{')); err != nil {
		return "", err
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return "", fmt.Errorf("reading a list: %w", err)
		}
		field, _ := token.(string)
		var meta metav1.ListMeta
		var other json.RawMessage
		switch reader := read[field]; {
		case reader != nil:
			err = reader(decoder)
		case field == "metadata":
			err = decoder.Decode(&meta)
			next = meta.Continue
		default:
			err = decoder.Decode(&other)
		}
		if err != nil {
			return "", err
		}
	}
	return next, expect(decoder, json.Delim('}'))
}

func decodeItems[T any](decoder *json.Decoder, each func(*T) error) error {
	opening, err := decoder.Token()
	if err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	if opening == nil {
		return nil // null is an empty list.
	}
	if opening != json.Delim('[') {
		return fmt.Errorf("reading a list: its items begin with %v", opening)
	}
	for decoder.More() {
		item := new(T)
		if err := decoder.Decode(item); err != nil {
			return fmt.Errorf("reading a list: %w", err)
		}
		if err := each(item); err != nil {
			return err
		}
	}
	return expect(decoder, json.Delim(']'))
}

func expect(decoder *json.Decoder, want json.Delim) error {
	got, err := decoder.Token()
	if err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	if got != want {
		return fmt.Errorf("reading a list: %v where %v is expected", got, want)
	}
	return nil
}
