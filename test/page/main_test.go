// SPDX-License-Identifier: Apache-2.0

// Package page looks at the pages of the kubectl plugins with a real browser: against the real
// API server with a manager and the owners' view, and, where time or number matters, against
// one that a test makes up.
package page

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	world "hoststatus.dev/hoststatus/test/framework/kubectlplugin"
)

// patience is how long something may take that is not timed.
const patience = 30 * time.Second

var update = flag.Bool("update", false, "write the pictures and the layouts that the pages are compared with")

// env is what the tests share: a control plane with a manager and the owners' view.
var env world.World

// browser is what the tests share of a browser.
var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			fmt.Println("without a browser the pages are not tested, which CI does not accept; hack/ensure-packages.sh browser installs one")
			return 1
		}
		fmt.Println("SKIPPED: the pages are not tested: there is no chromium; hack/ensure-packages.sh browser installs it")
		return 0
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.Flag("no-proxy-server", true),
		// What it prints is the same on machines with other screens and languages.
		chromedp.Flag("force-device-scale-factor", "1"), chromedp.Flag("lang", "en"), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("font-render-hinting", "none"), chromedp.Flag("disable-gpu", true))
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	var end context.CancelFunc
	browser, end = chromedp.NewContext(allocated)
	defer end()
	if err := chromedp.Do(browser); err != nil {
		fmt.Println("starting the browser:", err)
		return 1
	}
	if testing.Short() {
		fmt.Println("-short leaves out what needs a control plane")
		return m.Run()
	}
	return env.Main(m, start, "agent", "kubectl-hosts", "kubectl-servers", "manager", "tenant-apiserver")
}

func start(ctx context.Context) error {
	if err := env.Install(ctx); err != nil {
		return err
	}
	if _, err := env.StartManager(); err != nil {
		return err
	}
	return env.StartView(ctx)
}

// needsControlPlane leaves a test out where there is none.
func needsControlPlane(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
}

// served runs the real plugin through kubectl, and returns the page's address. The function
// ends it as Ctrl-C does, and returns what it printed to standard error.
func served(t *testing.T, kubeconfig string, args ...string) (address string, interrupt func() string) {
	t.Helper()
	// Its tab closes first, at the end of the test.
	cmd := env.Kubectl(context.WithoutCancel(t.Context()), kubeconfig, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	expect.NoError(t, err)
	expect.NoError(t, cmd.Start())
	var once sync.Once
	interrupt = func() string {
		once.Do(func() {
			_ = cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Errorf("after Ctrl-C %v ends with %v: %s", args, err, complaints.String())
			}
		})
		return complaints.String()
	}
	t.Cleanup(func() { interrupt() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v prints no address: %v, %s", args, err, complaints.String())
	}
	return strings.TrimSpace(line), interrupt
}

// servedBy runs a plugin in this process against an API server that is made up.
func servedBy(t *testing.T, plugin func(context.Context, kubectlplugin.Environment, []string) int, server string, args ...string) string {
	t.Helper()
	// It has a context, as that of the real one has, so that the pages have the same words.
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: server}))
	printed, in := io.Pipe()
	// The tab closes first, at the end of the test.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan int, 1)
	go func() {
		defer func() { _ = in.Close() }()
		done <- plugin(ctx, kubectlplugin.Environment{
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: in, ErrOut: t.Output()}, Getenv: func(string) string { return "" }, ManagerPatience: 100 * time.Millisecond,
		}, append(args, "--kubeconfig="+kubeconfig))
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("%v ends with %d", args, code)
		}
	})
	line, err := bufio.NewReader(printed).ReadString('\n')
	expect.NoError(t, err)
	return strings.TrimSpace(line)
}

// tab is one of the browser.
type tab struct {
	context.Context
	t *testing.T
	// tolerates are parts of what the browser may complain about: requests that a test makes fail.
	tolerates []string
}

// newTab opens a tab of a size. Whatever the browser complains about fails the test.
func newTab(t *testing.T, width, height int64) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 2*patience)
	t.Cleanup(stop)
	tb := &tab{Context: ctx, t: t}
	complain := func(text string) {
		if !slices.ContainsFunc(tb.tolerates, func(tolerated string) bool { return strings.Contains(text, tolerated) }) {
			t.Errorf("the browser complains: %s", text)
		}
	}
	expect.NoError(t, chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			complain(e.ExceptionDetails.Text + " " + e.ExceptionDetails.URL)
		case *log.EventEntryAdded:
			complain(e.Entry.Text + " " + e.Entry.URL)
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	expect.NoError(t, err)
	tb.do(chromedp.EmulateViewport(width, height))
	return tb
}

func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	if err := chromedp.Do(tb.Context, actions...); err != nil {
		tb.t.Fatal(err)
	}
}

// open opens a page, and waits until it has listed everything.
func (tb *tab) open(address string) {
	tb.t.Helper()
	tb.do(chromedp.Navigate(address))
	tb.becomes("live", `document.documentElement.dataset.live === 'yes' && document.querySelector('[aria-busy=true]') === null`)
}

// evaluate runs a script, and decodes what it, or its promise, comes to.
func evaluate[T any](tb *tab, script string) (out T) {
	tb.t.Helper()
	out, err := chromedp.Run(tb.Context, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("%s: %v", script, err)
	}
	return out
}

// becomes waits until a script is true.
func (tb *tab) becomes(what, script string) {
	tb.t.Helper()
	err := expect.Poll(tb.Context, patience, func() error {
		ok, err := chromedp.Run(tb.Context, chromedp.Evaluate[bool]("(async () => Boolean("+script+"))()", chromedp.EvalAwaitPromise))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("not %s", what)
		}
		return nil
	})
	if err != nil {
		text, _ := chromedp.Run(tb.Context, chromedp.Evaluate[string]("document.body.innerText.slice(0, 2000)"))
		tb.t.Fatalf("the page does not become %s: %v\n%s", what, err, text)
	}
}

// press types keys.
func (tb *tab) press(keys ...string) {
	tb.t.Helper()
	for _, key := range keys {
		if len(key) != 1 || key < " " {
			tb.do(chromedp.KeyEvent(key))
			continue
		}
		// A letter is typed unless the page takes the key for itself.
		for _, event := range []input.DispatchKeyEventParams{{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key}, {Type: input.DispatchKeyEventTypeKeyUp, Key: key}} {
			if _, err := chromedp.Call(tb.Context, input.DispatchKeyEvent, event); err != nil {
				tb.t.Fatal(err)
			}
		}
	}
}
