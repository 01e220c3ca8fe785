// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/internal/kubectlservers"
)

// example is an expression over the modules of a page, and its value as JSON.
type example struct{ name, script, want string }

// modules makes what the examples use: the modules, a table of statuses, and objects.
const modules = `
const at = (path) => new URL(path, location.href).href;
const {Statuses} = await import(at('shared/statuses.js'));
const names = await import(at('shared/names.js'));
const times = await import(at('shared/times.js'));
const follow = await import(at('shared/follow.js'));
const model = await import(at('model.js'));
const statuses = new Statuses((await (await fetch('start.json')).json()).statuses);
const host = (name, status, more = {}) => ({metadata: {name, labels: more.labels}, spec: more.spec, status: {hostStatus: status, ...more.status}});
const server = (name, hostID, more = {}) => ({metadata: {namespace: 'team-a', name}, status: {hostID, ...more}});
const minute = 60000;
`

func examine(t *testing.T, tb *tab, examples []example) {
	t.Helper()
	for _, e := range examples {
		got := evaluate[string](tb, "(async () => {"+modules+"return JSON.stringify(await (async () => {"+e.script+"})());})()")
		var value, want any
		if err := json.Unmarshal([]byte(got), &value); err != nil {
			t.Errorf("%s: %q: %v", e.name, got, err)
			continue
		}
		if err := json.Unmarshal([]byte(e.want), &want); err != nil {
			t.Fatalf("%s: %q: %v", e.name, e.want, err)
		}
		if diff := cmp.Diff(want, value); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.name, diff)
		}
	}
}

// follower makes one that gets the given answers, one after the other, and writes down what
// it does. An answer is a list, the lines of a watch, or an error.
const follower = `
const did = [];
const answers = [...ANSWERS];
const body = (text) => new Response(text).body;
const f = new follow.Follower({
  path: 'p', query: 'labelSelector=a',
  store: {begin: () => did.push('begin'), put: (o) => did.push('put ' + o.metadata.name), end: () => did.push('end'),
    changed: (o) => did.push('changed ' + o.metadata.name), removed: (o) => did.push('removed ' + o.metadata.name)},
  heard: (problem) => did.push('heard ' + problem), warned: () => {},
  request: async (url) => {
    const query = new URL(url, location.href).searchParams;
    did.push(query.has('watch') ? 'watch ' + query.get('resourceVersion') : 'list ' + (query.get('continue') ?? ''));
    const answer = answers.shift();
    if (typeof answer === 'string') {
      return {body: body(answer)};
    }
    if (answer instanceof Error) {
      throw answer;
    }
    return {json: async () => answer};
  },
  wait: async (ms) => did.push('wait ' + ms), random: () => 1, now: () => 0,
});
await f.run(() => answers.length === 0);
return did;
`

func follows(answers string) string {
	return "const list = (next, version, ...items) => ({metadata: {continue: next, resourceVersion: version}, items: items.map((name) => ({metadata: {name}}))});" +
		"const line = (type, name, version) => JSON.stringify({type, object: {metadata: {name, resourceVersion: version}, code: 410, message: 'too old'}}) + '\\n';" +
		"const ANSWERS = " + answers + ";" + follower
}

func TestWhatThePagesDecideApartFromDrawing(t *testing.T) {
	f := newFake(t)
	hosts, servers := servedBy(t, kubectlhosts.Run, f.URL, "page"), servedBy(t, kubectlservers.Run, f.URL, "page", "-n", "team-a")
	tb := newTab(t, 800, 600)
	tb.open(hosts)
	examine(t, tb, []example{
		{"hosts are grouped by rack, else by the beginning of their names", `return [
			model.groupOf('compute-1', {rack: 'r12'}), model.groupOf('compute-1', {'topology.example.com/rack': 'r7', zone: 'a'}), model.groupOf('compute-1', {rack: ''}),
			model.groupOf('compute-12'), model.groupOf('r12-compute-3.example.com'), model.groupOf('node7'), model.groupOf('7'), model.groupOf('alpha')]`,
			`["rack r12", "rack r7", "compute", "compute", "r12-compute", "node", "other hosts", "other hosts"]`},
		{"names are ordered as people count", `return ['c-10', 'c-2', 'b', 'c-02', 'c-2a'].sort(names.compareNames)`, `["b", "c-02", "c-2", "c-2a", "c-10"]`},
		{"a filter wants all its words, and a status by its name", `
			const record = model.recordOf(host('compute-1', 'NEEDS_MAINTENANCE', {labels: {rack: 'r12'}}), statuses);
			return ['', 'COMPUTE R12', 'r13', 'status:needs_maintenance', 'status:maintenance', 'maint'].map((f) => names.matches(record.text, record.status.name, names.termsOf(f)))`,
			`[true, true, false, true, false, true]`},
		{"the reducer tells each difference once, and a new list what has gone", `
			const told = [];
			const fleet = new model.Fleet(statuses, (before, after) => told.push([before?.name, before?.status.name, after?.status.name]));
			fleet.begin(); fleet.put(host('a', 'UP')); fleet.put(host('b', 'UP')); fleet.end();
			fleet.changed(host('a', 'DOWN')); fleet.removed(host('b')); fleet.removed(host('b'));
			fleet.begin(); fleet.put(host('c', 'NEWER')); fleet.end();
			return [told, fleet.counts().map(({status, hosts}) => [status.name, status.letter, hosts])]`,
			`[[[null,null,"UP"],[null,null,"UP"],["a","UP","DOWN"],["b","UP",null],[null,null,"NEWER"],["a","DOWN",null]],[["NEWER","!",1]]]`},
		{"what a status hides is marked", `
			const dead = {conditions: [{type: 'Reporting', status: 'False'}]};
			return ['MAINTENANCE', 'UNKNOWN', 'DOWN'].map((status) => model.recordOf(host('a', status, {status: dead}), statuses).silent)`, `[true, false, false]`},
		{"a change that is known from two places is there once", `
			const changes = new model.Changes();
			const now = 100 * minute;
			changes.add({time: now - 1, host: 'a', to: statuses.of('DOWN')});
			changes.add({time: now - 1, host: 'a', from: statuses.of('UP'), to: statuses.of('DOWN')});
			changes.add({time: now - 59.5 * minute, host: 'a', to: statuses.of('UP')});
			changes.add({time: now - 60 * minute, host: 'b', to: statuses.of('UP')});
			changes.add({time: now + minute, host: 'c', to: statuses.of('UNKNOWN')});
			changes.forget(now);
			const minutes = changes.minutes(now);
			return [changes.latest(9).map(({host, from, to}) => [host, from?.name ?? null, to.name]), minutes.length, minutes[59].counts.map(({status, changes}) => [status.name, changes]), minutes.filter(({total}) => total > 0).length]`,
			`[[["c",null,"UNKNOWN"],["a","UP","DOWN"],["a",null,"UP"]],60,[["UNKNOWN",1]],2]`},
		{"changes have a bound", `
			const changes = new model.Changes();
			for (let i = 0; i < 20001; i++) { changes.add({time: i * 1000, host: 'h', to: statuses.of('UP')}); }
			return changes.latest(1e6).length <= 10000`, `true`},
		{"ages are kubectl's", `return [-5, 0, 59000, 179000, 180000, 3 * 3600000, 3 * 86400000].map(times.age)`, `["0s","0s","59s","179s","3m","3h","3d"]`},
		{"warnings are read from the header", `return [follow.warningsOf(null), follow.warningsOf('299 - "one \\"two\\", three", 299 - "four"')]`, `[[], ["one \"two\", three", "four"]]`},
		{"attempts come less and less often", `return [1, 2, 3, 9].map((n) => [follow.pause(n, 0), follow.pause(n, 1)])`, `[[100,200],[200,400],[400,800],[2500,5000]]`},
		{"lists come in pages, and a watch goes on where the last one ended", follows(`[list('next', '5', 'a'), list('', '5', 'b'),
			line('MODIFIED', 'a', '6') + line('BOOKMARK', '', '8'), line('DELETED', 'b', '9')]`),
			`["begin","list ","put a","list next","put b","end","watch 5","heard null","changed a","watch 8","heard null","removed b"]`},
		{"a forgotten version is listed anew at once", follows(`[list('', '5', 'a'), line('ERROR', '', ''), list('', '7', 'b'), line('ADDED', 'c', '8')]`),
			`["begin","list ","put a","end","watch 5","heard null","begin","list ","put b","end","watch 7","heard null","changed c"]`},
		{"without an answer it tries again from where it was", follows(`[list('', '5'), new Error('no answer'), new Error('no answer'), line('ADDED', 'c', '8'), new Error('cut')]`),
			`["begin","list ","end","watch 5","heard no answer","wait 200","watch 5","heard no answer","wait 400","watch 5","heard null","changed c","watch 8","heard cut","wait 200"]`},
		{"a watch that ends at once counts as a failure", follows(`[list('', '5'), '', line('ADDED', 'c', '8')]`),
			`["begin","list ","end","watch 5","heard null","heard the connection was closed at once","wait 200","watch 5","heard null","changed c"]`},
	})

	tb = newTab(t, 800, 600)
	tb.open(servers)
	examine(t, tb, []example{
		{"nothing is concluded from what is not shown", `
			const hidden = model.recordOf(server('a', 'x'), statuses), none = model.recordOf(server('a', '', {hostStatus: '', hostStatusReason: 'NoHost'}), statuses), early = model.recordOf(server('a', 'x', {hostStatusReason: 'WaitingForHeartbeat'}), statuses);
			return [hidden.shown, hidden.status ?? null, none.shown, none.status.letter, early.shown, early.status.letter, model.spansOf(hidden, 5)]`,
			`[false, null, true, "–", true, "…", []]`},
		{"neighbours are together, the most urgent first", `
			const records = [server('web-10', 'x', {hostStatus: 'UP'}), server('a', ''), server('web-2', 'x', {hostStatus: 'UP'}), server('db', 'y', {hostStatus: 'DOWN'}), server('b', ''), server('hidden', 'z')];
			const store = new model.Servers(statuses, () => {});
			records.forEach((o) => store.changed(o));
			store.removed(server('b', ''));
			return model.hostsOf(store.inOrder()).map(({alone, records}) => [alone, ...records.map(({name}) => name)])`,
			`[[true,"db"],[false,"web-2","web-10"],[true,"a"],[true,"hidden"]]`},
		{"servers of two namespaces are no neighbours, whatever their host ids", `
			const other = server('b', 'x'); other.metadata.namespace = 'team-b';
			return model.hostsOf([server('a', 'x'), other].map((o) => model.recordOf(o, statuses))).length`, `2`},
		{"a history becomes spans, the last of which is not over", `
			const history = [{hostStatus: 'UP', since: '2026-10-01T12:00:00Z'}, {hostStatus: 'UNKNOWN', since: '2026-10-01T11:00:00Z'}, {since: '2026-10-01T10:00:00Z'}];
			const zero = Date.parse('2026-10-01T10:00:00Z');
			const spans = (now) => model.spansOf(model.recordOf(server('a', 'x', {hostStatus: 'UP', hostHistory: history}), statuses), zero + now * minute).map(({status, from, to}) => [status.letter, (from - zero) / minute, (to - zero) / minute]);
			return [spans(150), spans(90)]`,
			`[[["…",0,60],["?",60,120],["U",120,150]],[["…",0,60],["?",60,90],["U",90,90]]]`},
		{"without a history the status itself is a span", `
			return model.spansOf(model.recordOf(server('a', 'x', {hostStatus: 'DOWN', hostStatusTransitionTime: '2026-10-01T10:00:00Z'}), statuses), Date.parse('2026-10-01T10:01:00Z')).map(({status, from, to}) => [status.letter, to - from])`,
			`[["D", 60000]]`},
		{"spans are cut where the line ends", `return [model.place(0, 50, 0, 100), model.place(-50, 25, 0, 100), model.place(75, null, 0, 100), model.place(-9, -1, 0, 100), model.place(101, null, 0, 100), model.place(40, 40, 0, 100)]`,
			`[{"left":0,"width":0.5},{"left":0,"width":0.25},{"left":0.75,"width":0.25},null,null,{"left":0.4,"width":0}]`},
		{"a window opens when it does as things stand", `
			const of = (w) => { const {from, to} = model.recordOf(server('a', 'x', {hostStatus: 'UP', maintenanceWindow: w}), statuses).window; return [from, to]; };
			return [of({}), of({startTime: '1970-01-01T00:00:01Z'}), of({startTime: '1970-01-01T00:00:01Z', opensAt: '1970-01-01T00:00:02Z', endTime: '1970-01-01T00:00:03Z'})]`,
			`[[null,null],[1000,null],[2000,3000]]`},
	})
}
