// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// wish is what an owner answers.
type wish struct {
	answer    ownerv1alpha1.Answer
	notBefore *metav1.Time
	// window is the start of the window, if --window names it.
	window *metav1.Time
}

// target is the server that an answer is for.
type target struct {
	namespace, name string
	// namespaceFlag is what a command that is suggested needs behind it.
	namespaceFlag string
	// server is nil if it may not be read.
	server *tenantv1alpha1.Server
	grant  Grant
	// present is the answer that there is; nil for none.
	present *ownerv1alpha1.MaintenanceAnswer
}

// plan is what an answer means for one server.
type plan struct {
	name string
	// needed is false if the same answer is there already.
	needed bool
	// object is the answer as it is to be.
	object *ownerv1alpha1.MaintenanceAnswer
	// says is what is printed after the name, and warnings what does not go as wished.
	says     string
	warnings []string
}

// decide makes the answer for a server. It is a usage error if there is nothing to answer to,
// or if it is not known to what.
func decide(w wish, t target, now time.Time) (*plan, error) {
	start, err := windowFor(w, t)
	if err != nil {
		return nil, err
	}
	p := &plan{name: t.name, object: &ownerv1alpha1.MaintenanceAnswer{}}
	if t.present != nil {
		p.object = t.present.DeepCopy()
	}
	p.object.SetGroupVersionKind(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"))
	p.object.Namespace, p.object.Name = t.namespace, t.name
	p.object.Spec = ownerv1alpha1.MaintenanceAnswerSpec{Answer: w.answer, NotBefore: w.notBefore, WindowStartTime: start}
	if t.server != nil {
		p.object.Spec.ServerUID = string(t.server.UID)
	}
	p.needed = t.present == nil || !sameAnswer(t.present.Spec, p.object.Spec)
	p.says = answerWords(p.object, now)
	p.warnings = warningsOf(w, t, start, now)
	return p, nil
}

// sameAnswer compares answers as they are stored, with times in whole seconds.
func sameAnswer(a, b ownerv1alpha1.MaintenanceAnswerSpec) bool {
	if !hoststatus.SameSecond(a.NotBefore, b.NotBefore) || !hoststatus.SameSecond(a.WindowStartTime, b.WindowStartTime) {
		return false
	}
	a.NotBefore, a.WindowStartTime, b.NotBefore, b.WindowStartTime = nil, nil, nil, nil
	return equality.Semantic.DeepEqual(a, b)
}

// windowFor is the start of the window that is answered, which is its name.
func windowFor(w wish, t target) (*metav1.Time, error) {
	if t.server == nil {
		if w.window != nil {
			return w.window, nil
		}
		return nil, kubectlplugin.UsageError("%s: its maintenance window is not known, because you lack the right to get servers.%s %s (ClusterRole %s); give the start of the window, as the platform team has announced it, with --window",
			t.name, tenantv1alpha1.SchemeGroupVersion.Group, inNamespace(t.namespace), roles[servers])
	}
	seen := sightOf(t.server, t.grant)
	announced := t.server.Status.MaintenanceWindow
	switch {
	case !seen.shown() && w.window != nil:
		return w.window, nil
	case !seen.shown():
		return nil, kubectlplugin.UsageError("%s: its maintenance window is not shown: %s. Or give the start of the window, as the platform team has announced it, with --window", t.name, seen.lacks())
	case announced == nil && w.window != nil:
		return w.window, nil
	case announced == nil:
		return nil, kubectlplugin.UsageError("%s: there is no maintenance window to answer to; nothing is announced for its host", t.name)
	case announced.StartTime == nil:
		return nil, kubectlplugin.UsageError("%s: the time of its maintenance window is not known yet; answer once 'kubectl servers show %s%s' shows it", t.name, t.name, t.namespaceFlag)
	case w.window != nil && !hoststatus.SameSecond(w.window, announced.StartTime):
		return nil, kubectlplugin.UsageError("%s: --window: %s is not its maintenance window, which starts at %s; correct --window, or leave it out",
			t.name, kubectlplugin.Stamp(w.window.Time), kubectlplugin.Stamp(announced.StartTime.Time))
	default:
		return announced.StartTime, nil
	}
}

// warningsOf are about what the answer cannot bring about.
func warningsOf(w wish, t target, start *metav1.Time, now time.Time) (out []string) {
	warn := func(format string, args ...any) { out = append(out, t.name+": "+fmt.Sprintf(format, args...)) }
	if t.server == nil {
		warn("the server could not be read, so it is not known whether it exists; the answer is for any server of that name")
	}
	if w.notBefore != nil && !w.notBefore.After(start.Time) {
		warn("%s is not later than the start of the window, %s, so it puts nothing off", kubectlplugin.Stamp(w.notBefore.Time), kubectlplugin.Stamp(start.Time))
	}
	if t.server == nil || !sightOf(t.server, t.grant).shown() {
		return out
	}
	announced := t.server.Status.MaintenanceWindow
	switch {
	case announced == nil:
		warn("no maintenance window is announced at present, so the answer counts for nothing unless one is for %s", kubectlplugin.Stamp(start.Time))
	case isOpen(&t.server.Status.HostFields, now):
		warn("its maintenance window is open, so answers change nothing any more")
	case w.notBefore == nil:
	case announced.LatestStartTime == nil:
		warn("owners cannot put this window off, so it opens %s all the same", when(opensAt(announced), now))
	case w.notBefore.After(announced.LatestStartTime.Time):
		warn("this window can be put off until %s and no longer, so it opens then, before the time that you ask for", when(announced.LatestStartTime, now))
	}
	return out
}
