/* SPDX-License-Identifier: Apache-2.0
 *
 * How the owners' view joins (docs/design/decisions/view-joins.md, internal/tenantapi/hosts.go):
 * one server on one host, two replicas of the view, one client that may see host status.
 */

#ifndef R
#define R 5            /* how many writes there may be, of the host and of the copy */
#endif
#define N 2            /* replicas */
#define LAST (R + 1)   /* the version of the bookmark that ends everything */

/* etcd. Version 0 is a host that is up, and its copy. */
byte now;              /* the newest version */
bit host;              /* 1 is down */
byte hostVersion;
bit copied;            /* the copy in the server */
byte copyOf, copyAt;   /* the version of the host that it is of, and its own */
bit value[LAST + 1];   /* what was written at a version, */
byte copies[LAST + 1]; /* and the version of the host that a copy is of */
bool isCopy[LAST + 1];

typedef Replica {
	byte servers, hosts;   /* what the two watches have brought, as versions */
	byte listed, listedHost; /* up to where hosts came by a list, and the version that it had */
	byte latest;           /* the newest place in the history */
	byte taken;            /* the version of the host that was taken in */
	bit copied;
	byte copyOf, copyAt;
	bool changed[LAST + 1]; /* where the history has a change, */
	bit shown[LAST + 1];   /* what is shown from there on, at LAST now, */
	byte version[LAST + 1] /* and of which version of the host that is */
};
Replica r[N];

/* The client. */
bit at;                /* its replica */
bool watching, owed;
byte place;            /* the version that it goes on from */
byte began;            /* and that with which its watch began */
bit seen;
byte seenVersion;      /* the newest version of the host that this replica has shown it */

byte x, y, i, n;
bit v;

#define joined(p_i) (r[p_i].copyOf >= r[p_i].taken -> r[p_i].copied : value[r[p_i].taken])
#define joinedVersion(p_i) (r[p_i].copyOf >= r[p_i].taken -> r[p_i].copyOf : r[p_i].taken)

/* see shows the client what is in v, of the version in n. */
inline see() {
	assert(n >= seenVersion); /* Nothing goes back on one replica. */
	seen = v; seenVersion = n;
	v = 0; n = 0
}

inline join(p_i) { v = joined(p_i); n = joinedVersion(p_i) }

/* add makes a change the newest of a replica's history, if it is one or p_doubt, and tells
 * the client. */
inline add(p_i, p_at, p_doubt) {
	if
	:: r[p_i].shown[LAST] != joined(p_i) || (p_doubt) ->
		r[p_i].changed[p_at] = true; r[p_i].shown[p_at] = joined(p_i); r[p_i].version[p_at] = joinedVersion(p_i);
		r[p_i].shown[LAST] = joined(p_i); r[p_i].version[LAST] = joinedVersion(p_i);
		if
		:: watching && at == p_i && p_at > began -> join(p_i); see(); place = p_at
		:: else
		fi
	:: else -> r[p_i].version[LAST] = joinedVersion(p_i)
	fi
}

/* takeIn takes in the host as its watch has brought it, up to a version, at a place. */
inline takeIn(p_i, p_upTo, p_at) {
	y = r[p_i].taken + 1;
	do
	:: y <= p_upTo && y <= r[p_i].hosts && y <= now ->
		if
		:: !isCopy[y] && (y > r[p_i].listed || y == r[p_i].listedHost) ->
			r[p_i].taken = y;
#ifndef LIST
			add(p_i, p_at, y <= r[p_i].listed)
#else
			add(p_i, p_at, false)
#endif
		:: else
		fi;
		y++
	:: else -> break
	od;
	y = 0
}

/* hearOfServers brings the next copy, or a bookmark of the version p_to. */
inline hearOfServers(p_i, p_to) {
#ifndef EARLY
	takeIn(p_i, p_to, p_to);
#endif
	if
	:: p_to <= now && isCopy[p_to] ->
		r[p_i].copied = value[p_to]; r[p_i].copyOf = copies[p_to]; r[p_i].copyAt = p_to;
		add(p_i, p_to, false)
	:: else
	fi;
	r[p_i].servers = p_to;
	if
	:: r[p_i].latest < p_to -> r[p_i].latest = p_to
	:: else
	fi;
	tellOwed(p_i)
}

inline hearOfHosts(p_i, p_to) {
	r[p_i].hosts = p_to;
#ifdef EARLY
	/* Before the watch of the servers has come so far. */
	takeIn(p_i, p_to, p_to);
	if
	:: r[p_i].latest < p_to -> r[p_i].latest = p_to
	:: else
	fi
#endif
}

/* tellOwed tells the client again what another replica may not have told it. */
inline tellOwed(p_i) {
	if
	:: watching && owed && at == p_i && r[p_i].latest >= began ->
		owed = false;
#ifndef OWED
		if
		:: r[p_i].taken > 0 && !(r[p_i].copyOf >= r[p_i].taken && r[p_i].copyAt <= began) -> join(p_i); see()
		:: else
		fi
#endif
	:: else
	fi
}

/* watch goes on from the client's place: the history after it is sent. */
inline watch() {
	watching = true; owed = true; began = place;
	x = place + 1;
	do
	:: x <= r[at].latest ->
		if
		:: r[at].changed[x] -> v = r[at].shown[x]; n = r[at].version[x]; see(); place = x
		:: else
		fi;
		x++
	:: else -> break
	od;
	x = 0;
	tellOwed(at)
}

/* list reads what etcd has, joined with what the replica has taken in. */
inline list() {
	watching = false;
	if
	:: copyAt <= r[at].servers ->
		join(at); see();
		/* The version of the newest change. */
		place = r[at].latest;
		do
		:: place > 0 && !r[at].changed[place] -> place--
		:: else -> break
		od
	:: else ->
		/* The replica is behind, and reads the server itself. */
		if
		:: copyOf >= r[at].taken -> v = copied; n = copyOf; see()
		:: else -> v = value[r[at].taken]; n = r[at].taken; see()
		fi;
		place = copyAt
	fi
}

inline copy() {
	now++;
	copied = host; copyOf = hostVersion; copyAt = now;
	isCopy[now] = true; value[now] = host; copies[now] = hostVersion
}

/* next leaves in x the version of the next copy that a replica has yet to hear of, or of a
 * bookmark if there is none. */
inline next(p_i) {
	x = r[p_i].servers + 1;
	do
	:: x < now && !isCopy[x] -> x++
	:: else -> break
	od
}

active proctype world() {
	do
	:: atomic { now < R -> now++; host = 1 - host; hostVersion = now; value[now] = host }
	:: atomic { now < R && copied != host -> copy() }
	:: atomic { r[0].servers < now -> next(0); hearOfServers(0, x); x = 0 }
	:: atomic { r[1].servers < now -> next(1); hearOfServers(1, x); x = 0 }
	:: atomic { r[0].hosts < now -> hearOfHosts(0, r[0].hosts + 1) }
	:: atomic { r[1].hosts < now -> hearOfHosts(1, r[1].hosts + 1) }
	/* The watch of a replica breaks, and what was in between is not known. */
	:: atomic { r[0].hosts < now -> r[0].listed = now; r[0].listedHost = hostVersion; hearOfHosts(0, now) }
	:: atomic { r[1].hosts < now -> r[1].listed = now; r[1].listedHost = hostVersion; hearOfHosts(1, now) }
	:: atomic { list() }
	:: atomic { !watching -> watch() }
	:: atomic { watching -> watching = false }
	:: atomic { at = 1 - at; watching = false; seenVersion = 0 }
	:: break
	od;
	/* The end: everything arrives. */
	atomic {
		if
		:: copied != host && now < R -> copy()
		:: else
		fi;
		i = 0;
		do
		:: i < N ->
			do
			:: r[i].hosts < now -> hearOfHosts(i, r[i].hosts + 1)
			:: else -> break
			od;
			do
			:: r[i].servers < now -> next(i); hearOfServers(i, x); x = 0
			:: else -> break
			od;
			hearOfServers(i, LAST);
			i++
		:: else -> break
		od;
		if
		:: !watching -> watch()
		:: else
		fi;
		assert(seen == host) /* The client has the truth. */
	}
}
