// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"net/http"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestAServerIsFoundByItsUIDWhereItMayBeListed(t *testing.T) {
	mine, others := newNamespace(t), newNamespace(t)
	owner, reader := newPerson(t), newPerson(t)
	bind(t, owner, viewer, mine)
	bind(t, reader, viewer, "")
	admin := administrator(t)
	web := putServer(t, mine, "web", "")
	db := putServer(t, others, "db", "")
	names := func(p *person, namespace, query string) (all []string) {
		t.Helper()
		for _, s := range p.list(t, namespace, query).Items {
			all = append(all, s.Namespace+"/"+s.Name)
		}
		return all
	}
	only := func(what string, got []string, want ...string) {
		t.Helper()
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	byUID := func(uid string) string { return "fieldSelector=metadata.uid%3D" + uid }
	// An answer from the cache may be older than what was made just now.
	expect.Eventually(t, patience, func() error {
		if got := len(names(reader, mine, "resourceVersion=0")) + len(names(reader, others, "resourceVersion=0")); got != 2 {
			return fmt.Errorf("%d servers are known", got)
		}
		return nil
	})
	for _, cached := range []string{"", "&resourceVersion=0"} {
		only("in its namespace"+cached, names(owner, mine, byUID(string(web.UID))+cached), mine+"/web")
		only("one of others"+cached, names(owner, mine, byUID(string(db.UID))+cached))
		only("no such one"+cached, names(owner, mine, byUID("00000000-0000-4000-8000-000000000000")+cached))
		only("anywhere, by one who may list all"+cached, names(reader, "", byUID(string(db.UID))+cached), others+"/db")
		if got := owner.get(t, pathOf("")+"?"+byUID(string(web.UID))+cached, ""); got.code != http.StatusForbidden {
			t.Errorf("anywhere, by one who may not list all%s: %d %s", cached, got.code, got.body)
		}
	}
	only("but this", names(owner, mine, "fieldSelector=metadata.uid%21%3D"+string(web.UID)))

	// The answer is as consistent as any other, whatever the view has heard by then.
	for range 5 {
		fresh := putServer(t, mine, "fresh", "")
		only("made just now", names(owner, mine, byUID(string(fresh.UID))), mine+"/fresh")
		expect.NoError(t, env.admin.Delete(t.Context(), fresh))
		only("deleted just now", names(owner, mine, byUID(string(fresh.UID))))
	}
	if got := admin.get(t, pathOf(mine)+"?fieldSelector=metadata.generation%3D1", ""); got.code != http.StatusBadRequest {
		t.Errorf("a field that servers cannot be selected by: %d %s", got.code, got.body)
	}
}
