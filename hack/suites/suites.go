// SPDX-License-Identifier: Apache-2.0

package main

// suite is some packages that are tested by one `go test`.
type suite struct {
	name string
	// dir is the folder of the module, if it is not this one.
	dir string
	// packages are patterns of `go test`; but are those that are left out. flags are `go test`'s.
	packages, but, flags []string
	// race turns the race detector on, in the tests and in the binaries that they build. What
	// looks at packages, commands, dashboards, mirrors and faults does without: it doubles the
	// CPU that the processes take, and other suites run the same processes with it.
	race bool
	// alone is of a suite that judges how late something is: it runs when no other does but
	// one that stays behind, and so after them.
	alone bool
	// behind is of a suite that judges nothing by the time it takes: it runs beside all others, and
	// has little of the CPU until only such are left.
	behind bool
	// controlPlane, prometheus and alertmanager are what has to be there before it begins, and debian what
	// hack/ensure-packages.sh installs for it.
	controlPlane, prometheus, alertmanager bool
	debian                                 string
	// releases and pods are of the control plane: kube-apiserver of all supported releases,
	// and what places and runs pods.
	releases, pods bool
	// builds are what its tests build, besides the commands, which all with a control plane do.
	builds []build
}

// testsOfMutants are tests of test/chaos that need no control plane, and that no fault may
// make late: a suite of their own, so that chaos has less to do while nothing runs beside it.
const testsOfMutants = "Mutant"

// testOfABrokenManager is a test of test/chaos that looks for faults which are there, and so
// fails for no lateness: a suite of its own as well.
const testOfABrokenManager = "BrokenManager"

// suites is the whole test suite, in the order in which suites begin: those that take long
// first.
var suites = []suite{
	// It builds 0.1 and images first.
	{name: "install", packages: []string{"./test/install"}, controlPlane: true, releases: true, pods: true, builds: []build{staticCommands, staticCommandsARM64, images, helm}},
	{name: "e2e", packages: []string{"./test/e2e"}, race: true, controlPlane: true},
	{name: "chaos", packages: []string{"./test/chaos/..."}, flags: []string{"-skip=" + testsOfMutants + "|" + testOfABrokenManager}, alone: true, controlPlane: true},
	{name: "tenantapi", packages: []string{"./test/tenantapi"}, race: true, controlPlane: true},
	// What judges how late an answer is, in real time, is a suite of its own: serving.
	{name: "unit", packages: []string{"./..."}, but: []string{"/test/", "/internal/serving", "/internal/leadership"}, race: true, behind: true},
	// Go does not know which packages it tests, and would take a result of before a change of
	// them for one of now.
	{name: "mutants", packages: []string{"./test/chaos"}, flags: []string{"-short", "-count=1", "-run=" + testsOfMutants}, behind: true},
	// The race detector would spoil what it measures, and the clients are no Go.
	{name: "nova", packages: []string{"./test/nova"}, controlPlane: true, debian: "openstack"},
	// The race detector would spoil what it measures, and the browser is no Go.
	{name: "page", packages: []string{"./test/page"}, controlPlane: true, debian: "browser"},
	{name: "brokenmanager", packages: []string{"./test/chaos"}, flags: []string{"-run=" + testOfABrokenManager}, controlPlane: true},
	{name: "vmimirror", packages: []string{"./test/vmimirror"}, controlPlane: true},
	// The short form of `make test-cluster`. It builds images, as install does.
	{name: "cluster", packages: []string{"./test/cluster"}, controlPlane: true, debian: "nodes", pods: true, builds: []build{staticCommands, images, helm}},
	{name: "fencing", packages: []string{"./test/fencing"}, controlPlane: true, debian: "fencing"},
	// The race detector would find a race within k8s.io/apiserver, which starts to follow
	// its certificates before it has finished its TLS configuration.
	{name: "leaks", packages: []string{"./test/leaks"}, controlPlane: true},
	{name: "nodemirror", packages: []string{"./test/nodemirror"}, controlPlane: true},
	// The race detector would spoil what it measures of the driver.
	{name: "libvirt", packages: []string{"./test/libvirt"}, controlPlane: true, debian: "domains"},
	{name: "observability", packages: []string{"./test/observability"}, controlPlane: true, prometheus: true, builds: []build{controllerGen}},
	{name: "kubectlhosts", packages: []string{"./test/kubectlhosts"}, controlPlane: true, builds: []build{staticCommands, krew}},
	// The race detector would spoil what it measures.
	{name: "notify", packages: []string{"./test/notify"}, controlPlane: true, alertmanager: true},
	{name: "kubectlservers", packages: []string{"./test/kubectlservers"}, controlPlane: true, builds: []build{staticCommands, krew}},
	// Memory under attack, and elections by the hundred: what the race detector would spoil.
	{name: "memory", packages: []string{"./internal/serving", "./internal/leadership"}},
	{name: "serving", packages: []string{"./internal/serving", "./internal/servingcert", "./internal/leadership"}, race: true},
	{name: "image", dir: "hack/image", packages: []string{"./..."}, race: true, behind: true},
	{name: "framework", packages: []string{"./test/framework/..."}, race: true, controlPlane: true},
	{name: "gitops", packages: []string{"./test/gitops"}, race: true, controlPlane: true, builds: []build{lua}},
	{name: "model", packages: []string{"./test/model"}, debian: "model", behind: true},
	{name: "bench", packages: []string{"./test/bench"}, race: true, behind: true},
}
