/* Slots: may a slot number be used again after its object was deleted?
 *
 * WRITERS replicas follow the log and, where they believe its end to be, claim the
 * next slot by create-if-absent. READERS replicas only follow it, two slots at a
 * time. A compactor folds slots into a snapshot, raises the floor, and deletes what
 * is below. Slots are numbered from 0 here, and floor_ == snap is allowed.
 *
 * The true history is what the first occupant of each slot was. It is asserted that
 *   - a replica applies nothing else (I1, I5), and
 *   - an acknowledged commit is in it (I1).
 *
 * What can be left out:
 *   -DNO_WRITER_CHECK  ROOT is not read between a won create and its acknowledgement
 *   -DNO_READER_CHECK  ROOT is not read between the last slot and applying
 *   -DCHECK_FIRST      ROOT is read before the slots instead of after them
 *   -DDELETE_FIRST     slots are deleted before the floor is raised (I2)
 *   -DNO_DELETE        nothing is ever deleted (then no check is needed)
 */
#ifndef N
#define N 4
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef READERS
#define READERS 0
#endif
#define TRIES 2			/* claims per writer */

byte slot[N];			/* the object in a slot: 0 none, else the commit's number */
byte truth[N];			/* ghost: the first occupant */
byte snap, floor_;		/* ROOT: slots below snap are in the snapshot, */
				/* slots below floor_ may be gone */
byte numbers;			/* commits handed out */

/* One round of a catch-up at position pos: look at two slots, then at ROOT. */
inline look(pos)
{
#ifdef CHECK_FIRST
	low = floor_;
#endif
	v0 = slot[pos];
	if
	:: v0 != 0 && pos + 1 < N -> v1 = slot[pos + 1]
	:: else -> v1 = 0
	fi;
#ifndef CHECK_FIRST
	low = floor_;
#endif
#ifdef NO_READER_CHECK
	low = 0
#endif
}

/* Apply what was seen, unless the snapshot has to be loaded. */
inline digest(pos)
{
	atomic {
		if
		:: low > pos -> pos = snap
		:: else ->
			if
			:: v0 != 0 -> assert(truth[pos] == v0); pos++
			:: else
			fi;
			if
			:: v0 != 0 && v1 != 0 -> assert(truth[pos] == v1); pos++
			:: else
			fi
		fi;
		v1 = 0; low = 0
	}
}

proctype Writer()
{
	byte pos, v0, v1, low, me, tries;
	bool won;

	pos = snap;
	do
	:: pos >= N || tries >= TRIES -> break
	:: else ->
		look(pos);
		if
		:: v0 == 0 && low <= pos ->		/* the end, or so it seems */
			atomic {
				numbers++; me = numbers; tries++; low = 0;
				won = (slot[pos] == 0);
				if
				:: won ->
					slot[pos] = me;
					if
					:: truth[pos] == 0 -> truth[pos] = me
					:: else
					fi
				:: else
				fi
			};
			if
			:: won ->
#ifndef NO_WRITER_CHECK
				low = floor_;
#endif
				atomic {
					if
					:: low > pos -> pos = snap	/* a phantom: not acknowledged */
					:: else -> assert(truth[pos] == me); pos++
					fi;
					won = false; low = 0; me = 0
				}
			:: else -> me = 0
			fi
		:: else -> digest(pos)
		fi;
		v0 = 0
	od
}

proctype Reader()
{
	byte pos, v0, v1, low;

	do
	:: pos < N -> look(pos); digest(pos); v0 = 0
	:: break
	od
}

proctype Compactor()
{
	byte folded, gone;

	do
	:: folded < N && slot[folded] != 0 ->
		assert(truth[folded] == slot[folded]); folded++
	:: folded > snap -> snap = folded
#ifdef DELETE_FIRST
	:: gone < snap -> atomic { slot[gone] = 0; gone++ }
	:: floor_ < gone -> floor_ = gone
#else
	:: floor_ < snap -> floor_ = snap
#ifndef NO_DELETE
	:: gone < floor_ -> atomic { slot[gone] = 0; gone++ }
#endif
#endif
	:: break
	od
}

init {
	byte i;
	atomic {
		do
		:: i < WRITERS -> run Writer(); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < READERS -> run Reader(); i++
		:: else -> break
		od;
		i = 0;
		run Compactor()
	}
}
