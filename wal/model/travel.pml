/* Looking back: does what a bookmark or a restore needs stay in the bucket, and is
 * what they read the truth?
 *
 * The log has N segments. State k is what the first k of them make; a snapshot of
 * state k may be there, and ROOT names the newest. State k can be had if there is a
 * snapshot of a state q <= k and segments q+1 to k are there. COMPACTORS replicas fold
 * the log into snapshots, raise the floor, delete segments below it, and thin out
 * snapshots that nobody needs; each may sleep between any two steps. Somebody sets a
 * bookmark, of the present or (-DPAST) of a state that only older snapshots lead to. A
 * traveller reads some state, as a restore does, while a writer that slept through all
 * of it creates a segment anew that was deleted (a phantom).
 *
 * It is asserted that
 *   - a state with an acknowledged bookmark can be had, at any time, and
 *   - a traveller reads the true state or none (I1).
 *
 * Bookmarks and the floor stand in ROOT, so that one swap of ROOT notices the other.
 * What can be left out:
 *   -DMARK_ASIDE     bookmarks are objects of their own: the swap that raises the floor
 *                    does not notice a new one
 *   -DTHIN_UNSEEN    snapshots are thinned out without looking at bookmarks
 *   -DNO_LOOK_AGAIN  a bookmark on the past is acknowledged without looking for its state
 *                    once more after it was set
 *   -DNO_ROOT_CHECK  a traveller does not read ROOT after the segments
 * What can be added:
 *   -DPAST           bookmarks on the past
 *   -DDOOM           a compactor says in ROOT which snapshots it is about to delete, by a
 *                    swap that notices bookmarks, and bookmarks do without these. Once
 *                    they are deleted it may leave that out again
 */
#ifndef N
#define N 3
#endif
#ifndef COMPACTORS
#define COMPACTORS 1
#endif
#define NONE 99

bool gone[N];			/* segment i+1 was deleted */
bool phantom[N];		/* and created anew, with another content */
bool snap[N + 1];		/* there is a snapshot of this state; of state 0 nothing is needed */
bool doomed[N + 1];		/* ROOT */
byte newest;			/* ROOT: the state of its snapshot */
byte floor_ = 0;		/* ROOT: segments 1 to floor_ may be gone */
byte mark = NONE;		/* ROOT: the bookmark's state */
byte kept = NONE;		/* ghost: the state of an acknowledged bookmark */

/* Is state k there to be had, of the snapshots there are, or were when they were listed? Sets ok. */
inline reach(k, stale, blind)
{
	ok = false; q = 0;
	do
	:: q <= k ->
		if
		:: (q == 0 || !(stale) && snap[q] || (stale) && listed[q]) && !(blind && doomed[q] && q != newest) ->
			j = q; whole = (q >= floor_ || q == k);
			do
			:: j < k -> if :: gone[j] -> whole = false :: else fi; j++
			:: else -> break
			od;
			if :: whole -> ok = true :: else fi
		:: else
		fi;
		q++
	:: else -> break
	od;
	q = 0; j = 0; whole = false
}

/* The newest snapshot of a state up to k that is not about to be deleted. */
inline below(k)
{
	q = k;
	do
	:: q > 0 && (!snap[q] || doomed[q] && q != newest) -> q--
	:: else -> break
	od
}

proctype Compactor()
{
	byte to, seen, victim, q, j;

	do
	/* Fold. */
	:: atomic { newest < N -> newest++; snap[newest] = true }
	/* Truncate. */
	:: atomic {
			seen = mark; to = newest;
			if
			:: seen != NONE && seen < to -> below(seen); to = q; q = 0
			:: else
			fi
		};
		atomic {
			if
#ifdef MARK_ASIDE
			:: floor_ < to -> floor_ = to
#else
			:: floor_ < to && mark == seen && !(doomed[to] && to != newest) -> floor_ = to
#endif
			:: else
			fi;
			to = 0; seen = 0
		}
	:: atomic { j < floor_ && !gone[j] -> gone[j] = true }; j++
	:: atomic { j < floor_ && gone[j] -> j++ }
#ifdef DOOM
	:: atomic {
			victim = 1;
			do
			:: victim < newest -> victim++
			:: break
			od;
			if :: doomed[victim] && !snap[victim] -> doomed[victim] = false :: else fi;
			victim = 0
		}
#endif
	/* Thin out. */
	:: victim < newest ->
		atomic {
			victim = 1;
			do
			:: victim < newest - 1 -> victim++
			:: break
			od;
			seen = mark; q = 0;
#ifndef THIN_UNSEEN
			if :: seen != NONE -> below(seen) :: else fi;
#endif
			if
			:: victim >= newest || !snap[victim] || q == victim -> victim = 0
			:: else
			fi;
			q = 0
		};
		/* ROOT, once more. */
		atomic {
			if
#ifndef THIN_UNSEEN
			:: mark != seen -> victim = 0
#endif
			:: else ->
#ifdef DOOM
				if :: seen != NONE -> below(seen) :: else fi;
				if
				:: victim != 0 && q != victim -> doomed[victim] = true
				:: else -> victim = 0
				fi;
				q = 0
#else
				skip
#endif
			fi;
			seen = 0
		};
		atomic {
			if :: victim != 0 && victim != newest -> snap[victim] = false :: else fi;
			victim = 0
		}
	:: break
	od
}

proctype Bookmarker()
{
	byte k, q, j;
	bool ok, whole, late;
	bool listed[N + 1];

	do
	:: k < N -> k++
	:: break
	od;
#ifndef PAST
	if :: newest <= k -> skip :: else -> goto done fi;	/* of the present, or of what is to come */
#endif
	atomic {
		reach(k, false, true);
		if :: !ok -> goto done :: else fi;
		do
		:: q < N -> q++; listed[q] = snap[q]
		:: else -> break
		od;
		q = 0
	};
	atomic {
#ifndef PAST
		if :: k < newest -> goto done :: else fi;
#endif
#ifdef DOOM
		if :: k < newest -> reach(k, true, true) :: else -> ok = true fi;
		if :: !ok -> goto done :: else fi;
#endif
		mark = k; late = (k < newest)
	};
#ifndef NO_LOOK_AGAIN
	atomic {
		reach(k, false, true);
		if :: late && !ok -> mark = NONE; goto done :: else fi
	};
#endif
	kept = k;
	/* At any time after: */
	atomic { reach(k, false, false); assert(ok) };
done:	skip
}

proctype Traveller()
{
	byte k, from, j, q;
	bool wrong, ended;

	atomic {
		do
		:: k < N -> k++
		:: break
		od;
		below(k); from = q; q = 0;
		if :: from < floor_ && from != k -> goto done :: else fi
	};
	j = from;
	do
	:: j < k ->
		atomic {
			if
			:: gone[j] && !phantom[j] -> goto done		/* not there: it says so */
			:: phantom[j] -> wrong = true
			:: else
			fi;
			j++
		}
	:: else -> break
	od;
#ifndef NO_ROOT_CHECK
	if :: floor_ > from && from != k -> goto done :: else fi;
#endif
	assert(!wrong);
done:	skip
}

/* A writer that believes a deleted slot to be the end of the log. */
proctype Sleeper()
{
	byte i;

	do
	:: atomic { i < N && gone[i] -> phantom[i] = true; break }
	:: i < N -> i++
	:: break
	od
}

init {
	byte c;
	atomic {
		do
		:: c < COMPACTORS -> run Compactor(); c++
		:: else -> break
		od;
		c = 0;
		run Bookmarker();
#ifdef TRAVEL
		run Traveller(); run Sleeper()
#endif
	}
}
