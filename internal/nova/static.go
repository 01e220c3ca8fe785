// SPDX-License-Identifier: Apache-2.0

package nova

import "strings"

// updatedV21 and updatedV2 are when the compute API says that its versions were made.
const (
	updatedV21 = "2013-07-23T11:33:21Z"
	updatedV2  = "2011-01-21T11:33:21Z"

	statusCurrent   = "CURRENT"
	statusSupported = "SUPPORTED"
)

// apiVersion is a major version of the compute API.
type apiVersion struct {
	// element is that of paths, and id the name.
	element, id string
	legacy      bool
}

var (
	v21 = apiVersion{element: "v2.1", id: "v2.1"}
	v2  = apiVersion{element: "v2", id: "v2.0", legacy: true}
)

// fields appends what all documents say of a version.
func (a apiVersion) fields(e *encoder) {
	e.text("id", a.id)
	if a.legacy {
		e.text("status", statusSupported)
		e.text("version", "")
		e.text("min_version", "")
		e.text("updated", updatedV2)
		return
	}
	e.text("status", statusCurrent)
	e.text("version", maxVersion.String())
	e.text("min_version", minVersion.String())
	e.text("updated", updatedV21)
}

func selfLink(e *encoder, href string) {
	e.begin("", '{')
	e.text("rel", "self")
	e.text("href", href)
	e.end('}')
}

// versionList is the document of all versions.
func versionList(base string) []byte {
	e := &encoder{}
	e.begin("", '{')
	e.begin("versions", '[')
	for _, a := range []apiVersion{v2, v21} {
		e.begin("", '{')
		a.fields(e)
		e.begin("links", '[')
		selfLink(e, base+"/"+a.element+"/")
		e.end(']')
		e.end('}')
	}
	e.end(']')
	e.end('}')
	return e.b
}

// document is that of one version.
func (a apiVersion) document(base string) []byte {
	e := &encoder{}
	e.begin("", '{')
	e.begin("version", '{')
	a.fields(e)
	e.begin("links", '[')
	selfLink(e, base+"/"+a.element+"/")
	e.begin("", '{')
	e.text("rel", "describedby")
	e.text("type", "text/html")
	e.text("href", "http://docs.openstack.org/")
	e.end('}')
	e.end(']')
	e.begin("media-types", '[')
	e.begin("", '{')
	e.text("base", contentTypeJSON)
	e.text("type", "application/vnd.openstack.compute+json;version="+strings.TrimSuffix(strings.TrimPrefix(a.id, "v"), ".0"))
	e.end('}')
	e.end(']')
	e.end('}')
	e.end('}')
	return e.b
}

// empty serves a container in which nothing is here, but which clients ask for.
func empty(body string) func(*call) (*answer, error) {
	return func(*call) (*answer, error) { return ok([]byte(body)), nil }
}

// noFlavor serves GET /flavors/ID.
func (c *call) noFlavor() (*answer, error) {
	return nil, notFound("Flavor %s could not be found.", c.id)
}

// noImages serves what the compute API had of images.
func (c *call) noImages() (*answer, error) { return nil, noSuchResource() }

// refuse serves what is refused, whoever asks.
func refuse(what string) func(*call) (*answer, error) {
	return func(c *call) (*answer, error) {
		if len(c.body) > 0 {
			if err := checkContentType(c.request.Header); err != nil {
				return nil, err
			}
		}
		return nil, forbidden("%s is not possible here: hoststatus shows servers and the status of their hosts, and changes no server.", what)
	}
}

// serverActions are what clients can ask to be done with a server. All are refused: an
// answer that says yes would be a lie.
var serverActions = map[string]bool{
	"addFixedIp": true, "addFloatingIp": true, "addSecurityGroup": true, "changePassword": true, "confirmResize": true, "createBackup": true,
	"createImage": true, "evacuate": true, "forceDelete": true, "injectNetworkInfo": true, "lock": true, "migrate": true,
	"os-getConsoleOutput": true, "os-getRDPConsole": true, "os-getSPICEConsole": true, "os-getSerialConsole": true, "os-getVNCConsole": true,
	"os-migrateLive": true, "os-resetState": true, "os-start": true, "os-stop": true, "pause": true, "reboot": true, "rebuild": true,
	"removeFixedIp": true, "removeFloatingIp": true, "removeSecurityGroup": true, "rescue": true, "resetNetwork": true, "resize": true,
	"restore": true, "resume": true, "revertResize": true, "shelve": true, "shelveOffload": true, "suspend": true, "trigger_crash_dump": true,
	"unlock": true, "unpause": true, "unrescue": true, "unshelve": true,
}

// act serves POST /servers/ID/action.
func (c *call) act() (*answer, error) {
	object, err := c.object()
	if err != nil {
		return nil, err
	}
	actions := sortedKeys(object)
	switch {
	case len(actions) == 0:
		return nil, badRequest("Malformed request body")
	case !serverActions[actions[0]]:
		return nil, badRequest("There is no such action: %s", actions[0])
	}
	return refuse("The action " + actions[0])(c)
}
