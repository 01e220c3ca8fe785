/* SPDX-License-Identifier: Apache-2.0
 *
 * How a host's silence is decided (docs/design/silence.md, internal/heartbeat): one host, one
 * lease namespace, two managers, in steps of D/8. Names are those of the code where it has them.
 */

#ifndef FAULTS
#define FAULTS 2 /* how many outages, pauses and stalls may begin */
#endif
#define D 8
#define RENEW 2        /* a host renews every D/3, and again each step until that works */
#define BLIND (D / 4)  /* a longer gap between echoes is blind time */
#define LEASE 4        /* for how long a leader's own Lease holds */
#define SETTLED (3 * D) /* after so much calm every verdict must be right */
#define N 2            /* managers */
#define Q 6            /* a watch that is further behind is opened again, with a list */
#define NEVER 127      /* no deadline */
#define AGES 30        /* what is older is as old */

/* What a watch brings: a renewal, a canary that proves nothing, or one of ours by its age. */
#define RENEWAL 1
#define CANARY 2
#define OURS 10

mtype = { UP, SILENT };

/* The world. */
bool alive = true, died, revived;
byte sinceSent;                /* since the host has renewed */
bool renewedSinceVerdict;      /* since it was declared silent */
bool outage;                   /* the API server takes no write */
byte calm, same;               /* for how long no fault, and the host as it is */
byte faults = FAULTS;
mtype stored = UP;             /* the verdict in the ComputeService */
bit leader;
byte unrenewed;                /* since the leader has renewed its own Lease */

typedef Manager {
	bool paused, stalled;
	byte watch[Q];             /* what its watch has yet to bring */
	byte held;
	mtype reporting = UP;
	short deadline = D;        /* from now; NEVER if there is none */
	byte from;                 /* since what the deadline counts from */
	byte lastEcho, doubted;
	bool current, leads, blind;
	byte inFlight              /* age + 1 of a canary that was sent in an outage */
};
Manager m[N];

/* list leaves in a watch what a list has: whether the host has renewed, and the last canary. */
inline list(p_i) {
	k = 0; renewed = false; last = 0;
	do
	:: k < m[p_i].held ->
		if
		:: m[p_i].watch[k] == RENEWAL -> renewed = true
		:: else -> last = m[p_i].watch[k]
		fi;
		m[p_i].watch[k] = 0;
		k++
	:: else -> break
	od;
	m[p_i].held = 0;
	if
	:: renewed -> m[p_i].watch[0] = RENEWAL; m[p_i].held = 1
	:: else
	fi;
	if
	:: last -> m[p_i].watch[m[p_i].held] = last; m[p_i].held++
	:: else
	fi;
	last = 0; renewed = false; k = 0
}

inline append(p_i, p_what) {
	if
	:: m[p_i].held == Q -> list(p_i)
	:: else
	fi;
	m[p_i].watch[m[p_i].held] = p_what;
	m[p_i].held++
}

inline setDeadline(p_i, p_at) {
	m[p_i].deadline = p_at
}

/* renewed moves the deadline. */
inline renew(p_i) {
	if
	:: m[p_i].leads && !m[p_i].current && m[p_i].reporting == SILENT
	:: else ->
#ifdef ARRIVAL
		m[p_i].from = D; setDeadline(p_i, 0); /* by a clock that is D behind */
#else
		m[p_i].from = 0; setDeadline(p_i, D);
#endif
		m[p_i].reporting = UP
	fi
}

inline moveDeadline(p_i) {
	if
	:: m[p_i].deadline != NEVER ->
#ifndef SIGHT
		if
		:: m[p_i].lastEcho < m[p_i].from -> m[p_i].deadline = m[p_i].deadline + m[p_i].lastEcho
		:: else -> m[p_i].deadline = m[p_i].deadline + m[p_i].from
		fi;
		if
		:: m[p_i].deadline < D / 2 -> m[p_i].deadline = D / 2
		:: else
		fi
#else
		skip
#endif
	:: else
	fi
}

inline declare(p_i, p_age) {
	if
	:: m[p_i].leads && m[p_i].deadline != NEVER && m[p_i].deadline + p_age <= 0 ->
		m[p_i].deadline = NEVER; m[p_i].reporting = SILENT
	:: else
	fi
}

/* echoed takes a canary; ours is whether it proves something, by its age. */
inline echoed(p_i, p_ours, p_age) {
	if
	:: m[p_i].lastEcho > BLIND ->
		moveDeadline(p_i);
		m[p_i].doubted = 0;
		if
		:: !(p_ours) || p_age > BLIND -> m[p_i].doubted = m[p_i].lastEcho
		:: else
		fi
	:: m[p_i].lastEcho <= BLIND && m[p_i].doubted ->
		moveDeadline(p_i);
		if
		:: (p_ours) || m[p_i].lastEcho > 0 -> m[p_i].doubted = 0
		:: else
		fi
	:: else
	fi;
	m[p_i].lastEcho = 0; m[p_i].blind = false;
	if
	:: (p_ours) && m[p_i].leads ->
		m[p_i].current = true;
#ifndef BARRIER
		declare(p_i, p_age)
#endif
	:: else
	fi
}

/* deliver brings all that a watch has. */
inline deliver(p_i) {
	j = 0;
	do
	:: j < m[p_i].held ->
		if
		:: m[p_i].watch[j] == RENEWAL -> renew(p_i)
		:: m[p_i].watch[j] == CANARY -> echoed(p_i, false, 0)
		:: m[p_i].watch[j] >= OURS -> age = m[p_i].watch[j] - OURS; echoed(p_i, true, age); age = 0
		:: else
		fi;
		m[p_i].watch[j] = 0;
		/* What one event decides may be written before the next one comes. */
		if
		:: m[p_i].leads && leader == p_i && !outage -> write(p_i)
		:: else
		fi;
		j++
	:: else -> break
	od;
	m[p_i].held = 0; j = 0
}

/* canary writes one: to its writer it comes back as its own, to the other as any. */
inline canary(p_i, p_age) {
	append(p_i, OURS + p_age);
	append(1 - p_i, CANARY);
#ifdef BARRIER
	m[p_i].current = true;
	declare(p_i, p_age)
#endif
}

/* begin makes a manager a new process, which has just listed. */
inline begin(p_i) {
	k = 0;
	do
	:: k < Q -> m[p_i].watch[k] = 0; k++
	:: else -> break
	od;
	k = 0;
	m[p_i].held = 0; m[p_i].paused = false; m[p_i].stalled = false;
	m[p_i].leads = false; m[p_i].current = false; m[p_i].blind = false;
	m[p_i].lastEcho = 0; m[p_i].doubted = 0; m[p_i].inFlight = 0;
	m[p_i].from = 0; m[p_i].deadline = D; m[p_i].reporting = UP;
	recall(p_i)
}

/* recall takes the verdict that is stored. */
inline recall(p_i) {
#ifndef MEMORY
	if
	:: stored == SILENT -> m[p_i].reporting = SILENT; m[p_i].deadline = NEVER
	:: stored == UP && m[p_i].reporting == SILENT -> m[p_i].reporting = UP; m[p_i].from = 0; m[p_i].deadline = D
	:: else
	fi
#else
	skip
#endif
}

/* advance does what a manager does each step, besides what comes. */
inline advance(p_i) {
	if
	:: m[p_i].leads ->
#ifdef PROOF
		if
		:: m[p_i].deadline != NEVER && m[p_i].deadline <= 0 -> m[p_i].deadline = NEVER; m[p_i].reporting = SILENT
		:: else
		fi;
#endif
		/* Blind: what was sent and written proves nothing any more, and the watch is opened. */
		if
		:: m[p_i].lastEcho > BLIND && !m[p_i].blind ->
			m[p_i].blind = true;
			k = 0;
			do
			:: k < m[p_i].held ->
				if
				:: m[p_i].watch[k] >= OURS -> m[p_i].watch[k] = CANARY
				:: else
				fi;
				k++
			:: else -> break
			od;
			k = 0;
			list(p_i)
		:: else
		fi;
		/* A canary each step. */
		if
		:: !outage -> canary(p_i, 0)
		:: outage && m[p_i].inFlight == 0 -> m[p_i].inFlight = 1
		:: else
		fi;
		/* A leader of which another has taken over writes nothing. */
		if
		:: !outage && leader == p_i -> unrenewed = 0; write(p_i)
		:: else
		fi
	:: else
	fi
}

/* write stores the verdict. */
inline write(p_i) {
	if
	:: m[p_i].reporting != stored ->
		if
		:: m[p_i].reporting == SILENT ->
			assert(died); /* No false UNKNOWN. */
			/* One that is under way already counts: it arrives after the verdict. */
			renewedSinceVerdict = false;
			k = 0;
			do
			:: k < m[p_i].held ->
				if
				:: m[p_i].watch[k] == RENEWAL -> renewedSinceVerdict = true
				:: else
				fi;
				k++
			:: else -> break
			od;
			k = 0
		:: else ->
			assert(renewedSinceVerdict) /* No step back: only a renewal makes a silent host UP. */
		fi;
		stored = m[p_i].reporting
	:: else
	fi
}

inline fault() { faults--; calm = 0 }

inline older(p_value) {
	if
	:: p_value < AGES -> p_value++
	:: else
	fi
}

/* pass lets a step of time pass. */
inline pass() {
	older(calm); older(same); older(sinceSent); older(unrenewed);
	i = 0;
	do
	:: i < N ->
		older(m[i].lastEcho); older(m[i].from);
		if
		:: m[i].deadline != NEVER && m[i].deadline > -AGES -> m[i].deadline--
		:: else
		fi;
		if
		:: m[i].inFlight -> older(m[i].inFlight)
		:: else
		fi;
		k = 0;
		do
		:: k < m[i].held ->
			if
			:: m[i].watch[k] >= OURS && m[i].watch[k] < OURS + AGES -> m[i].watch[k] = m[i].watch[k] + 1
			:: else
			fi;
			k++
		:: else -> break
		od;
		k = 0;
		i++
	:: else -> break
	od;
	i = 0
}

byte i, j, k, age, last;
bool renewed;

inline host() {
	if
	:: alive && sinceSent >= RENEW && !outage ->
		append(0, RENEWAL); append(1, RENEWAL);
		sinceSent = 0;
		if
		:: stored == SILENT -> renewedSinceVerdict = true
		:: else
		fi
	:: else
	fi
}

inline step(p_x) {
	if
	:: m[p_x].paused
	:: else ->
		if
		:: m[p_x].stalled
		:: else -> deliver(p_x)
		fi;
		advance(p_x)
	fi
}

inline managers() { step(0); step(1) }

active proctype world() {
	m[0].leads = true; m[0].current = true;
	do
	:: atomic {
		/* What may happen. */
		if
		:: true
		:: alive && !died -> alive = false; died = true; same = 0
		:: !alive && !revived -> alive = true; revived = true; same = 0
		:: !outage && faults > 0 -> outage = true; fault()
		:: outage -> outage = false;
			i = 0;
			do
			:: i < N ->
				if
				:: m[i].inFlight ->
					if
					:: true /* lost */
					:: m[i].leads -> age = m[i].inFlight - 1; canary(i, age); age = 0
					fi;
					m[i].inFlight = 0
				:: else
				fi;
				i++
			:: else -> break
			od;
			i = 0
		:: faults > 0 && !m[0].paused -> m[0].paused = true; fault()
		:: faults > 0 && !m[1].paused -> m[1].paused = true; fault()
		:: faults > 0 && !m[0].stalled -> m[0].stalled = true; fault()
		:: faults > 0 && !m[1].stalled -> m[1].stalled = true; fault()
		:: m[0].stalled -> m[0].stalled = false
		:: m[1].stalled -> m[1].stalled = false
		:: m[0].paused -> m[0].paused = false
		:: m[1].paused -> m[1].paused = false
		fi;
		/* A former leader ends, and is started again. */
		if
		:: m[1 - leader].leads && !m[1 - leader].paused -> i = 1 - leader; begin(i); i = 0
		:: else
		fi;
		/* A leader that could not renew ends, and its Lease runs out. */
		if
		:: unrenewed >= LEASE && !outage && !m[1 - leader].paused ->
			leader = 1 - leader;
			unrenewed = 0;
			i = leader;
			m[i].leads = true; m[i].current = false;
			recall(i);
			i = 0
		:: else
		fi;
		/* Who comes first in a step is open. */
		if
		:: true -> host(); managers()
		:: true -> managers(); host()
		:: true -> step(0); host(); step(1)
		fi;
		if
		:: outage || m[0].paused || m[1].paused || m[0].stalled || m[1].stalled -> calm = 0
		:: else
		fi;
		/* Nothing is missed for ever. */
		assert(!(calm >= SETTLED && same >= SETTLED) || stored == (alive -> UP : SILENT));
		pass()
	}
	od
}
