/* Sessions: is a batch whose create got no answer performed once, or twice?
 *
 * Each of WRITERS has one batch. A create may be lost on its way, performed without
 * an answer, or performed later, when the writer has long given up waiting. A
 * compactor truncates the log; a janitor may drop the session of a writer, by a
 * segment as everything else. Following the log is one step here: slots.pml shows
 * what it takes to make it one.
 *
 * A writer's state after slot n says whether its session is known, and whether its
 * batch was applied. It is asserted that
 *   - no batch is in the true history twice (I4),
 *   - an acknowledged one is in it, and
 *   - one of which the writer said "nothing happened" never gets into it.
 *
 * What can be left out:
 *   -DNO_SESSIONS      the state does not remember batches; only slots that are read do
 *   -DNO_FENCE         a missing session is taken for "not applied"
 *   -DLOST_ON_EXIST    "exists" is taken for the proof that somebody else won
 *   -DMISS_CONCLUDES   after no answer, an empty slot is taken for "nothing happened"
 *   -DSKIP_SLOT        after no answer, the batch goes to the slot after
 *   -DNO_WRITER_CHECK  as in slots.pml
 * What can be added:
 *   -DJANITOR          sessions are dropped
 */
#ifndef N
#define N 4
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef TRIES
#define TRIES 3			/* creates per writer, before it says "unknown" */
#endif
#define FORGET 10		/* FORGET+w drops the session of writer w */

byte slot[N], truth[N];		/* as in slots.pml; a batch is its writer's number */
byte end;			/* ghost: length of the true history */
byte snap, floor_;
byte late_at[WRITERS + 1];	/* a create still on its way: slot+1, or 0 */
bool denied[WRITERS + 1];	/* ghost: the writer said "nothing happened" */

/* The bucket performs a create. */
inline perform(n, what)
{
	if
	:: slot[n] != 0
	:: else ->
		slot[n] = what;
		if
		:: truth[n] == 0 ->
			truth[n] = what;
			if
			:: end <= n -> end = n + 1
			:: else
			fi;
			audit(what)
		:: else				/* a phantom */
		fi
	fi
}

/* How often is a batch in the history? */
inline audit(what)
{
	i = 0; times = 0;
	do
	:: i < N -> if :: truth[i] == what -> times++ :: else fi; i++
	:: else -> break
	od;
	assert(times <= 1);
	assert(what > WRITERS || times == 0 || !denied[what]);
	i = 0
}

/* What the state says of our session if it holds the slots below to. */
inline recall(from, to)
{
	i = from;
	do
	:: i < to ->
		if
		:: truth[i] == me -> applied = true
		:: truth[i] == FORGET + me -> applied = false; known = false
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* Catch up from pos. "lost" is set if our slot was read and is somebody else's. */
inline catch_up()
{
	atomic {
		lost = false;
		if
		:: floor_ > pos ->
			applied = false; known = true;
			recall(0, snap);
#ifdef NO_SESSIONS
			applied = false; known = true;
#endif
			pos = snap
		:: else
		fi;
		if
		:: pos == mine && slot[pos] != 0 && slot[pos] != me -> lost = true
		:: else
		fi;
		recall(pos, end);
		pos = end
	}
}

proctype Writer(byte me)
{
	byte pos, mine, tries, i, times;
	bool known, applied, lost;

	known = true;
	do
	:: applied ->
		atomic { audit(me); assert(times == 1); times = 0 };	/* acknowledge */
		break
	:: !applied && lost && !known ->
		/* Certain, session or not: our slot holds something else. */
		atomic { denied[me] = true; audit(me); times = 0 };
		break
#ifndef NO_FENCE
	:: !applied && !lost && !known -> break		/* fenced: unknown */
#endif
	:: else ->
		if
		:: tries >= TRIES || pos >= N -> break	/* unknown */
		:: else -> tries++; mine = pos; lost = false
		fi;
		if
		:: atomic { slot[pos] == 0 -> perform(pos, me); times = 0 };	/* answered: ours */
#ifndef NO_WRITER_CHECK
			if
			:: floor_ > mine -> catch_up()
			:: else -> atomic { applied = true; pos++ }
			fi
#else
			atomic { applied = true; pos++ }
#endif
		:: atomic { slot[pos] != 0 -> skip };				/* answered: exists */
			catch_up();
#ifdef LOST_ON_EXIST
			applied = false
#endif
		:: atomic {
				if
				:: perform(pos, me)			/* the answer is lost */
				:: skip					/* the request is lost */
				:: late_at[me] == 0 -> late_at[me] = pos + 1
				fi;
				times = 0
			};
#ifdef MISS_CONCLUDES
			if
			:: slot[pos] == 0 ->
				atomic { denied[me] = true; audit(me); times = 0 };
				break
			:: else
			fi
#endif
#ifdef SKIP_SLOT
			pos++
#endif
		/* Between two attempts anybody may ask for a catch-up. */
		:: catch_up()
		fi
	od
}

/* Delivers what writer w left on its way. */
proctype Network(byte w)
{
	byte i, times;

	do
	:: atomic { late_at[w] != 0 -> perform(late_at[w] - 1, w); late_at[w] = 0; times = 0 }
	:: break
	od
}

/* A replica like any other; it knows the end, so it claims it. */
proctype Janitor()
{
	byte w, i, times;

	do
	:: w < WRITERS ->
		w++;
		if
		:: atomic { end < N && slot[end] == 0 -> perform(end, FORGET + w); times = 0 }
		:: skip
		fi
	:: break
	od
}

proctype Compactor()
{
	byte gone;

	do
	:: snap < end -> snap = end
	:: floor_ < snap -> floor_ = snap
	:: gone < floor_ -> atomic { slot[gone] = 0; gone++ }
	:: break
	od
}

init {
	byte w;
	atomic {
		w = 1;
		do
		:: w <= WRITERS -> run Writer(w); run Network(w); w++
		:: else -> break
		od;
		w = 0;
		run Compactor();
#ifdef JANITOR
		run Janitor()
#endif
	}
}
