/* Hedges: may a create be sent twice, and its writer go on while one is under way?
 *
 * Each of WRITERS has BATCHES operations, one batch each. The creates of a batch travel
 * on COPIES lines: on each, the network performs what was sent, or loses it, and then
 * delivers the answer, or loses that, at any time each. A writer that has no answer may
 * send the same bytes to the same slot again while the first is under way, once, or
 * give up waiting and begin the next attempt. It goes on with the first answer; what is
 * still on the other line is performed whenever the network likes, after the log was
 * truncated too. A compactor truncates it. Following the log is one step, as in
 * sessions.pml.
 *
 * It is asserted that
 *   - no operation is in the true history twice (I4), and
 *   - an acknowledged one is in it.
 *
 * What can be left out:
 *   -DANEW            what is sent again is encoded anew, under another number
 *   -DANY_ANSWER      an answer is believed whatever attempt it belongs to
 *   -DEXISTS_IS_LOST  "exists" is taken for the proof that somebody else won
 *   -DNEXT_SLOT       what is sent again goes to the slot after
 *   -DNO_SESSIONS     the state does not remember batches; only slots that are read do
 *   -DNO_WRITER_CHECK as in slots.pml
 */
#ifndef N
#define N 4
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef BATCHES
#define BATCHES 2
#endif
#define COPIES 2		/* creates of one writer under way */
#ifndef TRIES
#define TRIES 3			/* attempts per writer, hedges not counted */
#endif
#define LINES (WRITERS * COPIES)
#define ID(w, k) ((w) * BATCHES + (k))	/* w from 0, k from 1 */
#define AGAIN 50			/* what ANEW adds to the number of a batch */

mtype = { idle, sent, created, exists };

byte slot[N], truth[N];		/* as in slots.pml; an object is the id of its batch */
byte end, snap, floor_;
mtype line[LINES] = idle;
byte to[LINES], what[LINES];	/* what is, or was, under way on a line */
bool old[LINES];		/* nobody waits for its answer any more */

inline clear(c)
{
	line[c] = idle; to[c] = 0; what[c] = 0; old[c] = false
}

inline perform(c)
{
	if
	:: slot[to[c]] != 0 -> line[c] = exists
	:: else ->
		slot[to[c]] = what[c];
		line[c] = created;
		if
		:: truth[to[c]] == 0 ->
			truth[to[c]] = what[c];
			if
			:: end <= to[c] -> end = to[c] + 1
			:: else
			fi;
			audit(what[c])
		:: else				/* a phantom */
		fi
	fi
}

/* How often is an operation in the history? */
inline audit(id)
{
	i = 0; times = 0;
	do
	:: i < N ->
		if
		:: truth[i] != 0 && truth[i] % AGAIN == id % AGAIN -> times++
		:: else
		fi;
		i++
	:: else -> break
	od;
	assert(times <= 1);
	i = 0
}

proctype Network()
{
	byte c, i, times;

	do
	:: atomic {
		c = 0;
		do
		:: c < LINES - 1 -> c++
		:: break
		od;
		if
		:: line[c] == sent ->
			perform(c);
#ifndef ANY_ANSWER
			if
			:: old[c] -> clear(c)		/* nobody hears the answer */
			:: else
			fi
#endif
		:: line[c] == sent -> clear(c)			/* the request is lost */
		:: line[c] == created || line[c] == exists -> clear(c)	/* the answer is */
		:: else
		fi;
		c = 0; times = 0
	   }
	:: break
	od
}

inline recall(from, upto)
{
	i = from;
	do
	:: i < upto ->
		if
		:: truth[i] == id -> applied = true
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* Catch up from pos. */
inline catch_up()
{
	if
	:: floor_ > pos ->
#ifndef NO_SESSIONS
		recall(0, snap);
#endif
		pos = snap
	:: else
	fi;
	recall(pos, end);
	pos = end
}

/* Send on a line of ours that is free. */
inline send(slot_, id_)
{
	c = me * COPIES;
	do
	:: c < (me + 1) * COPIES && line[c] != idle -> c++
	:: else -> break
	od;
	if
	:: c < (me + 1) * COPIES -> line[c] = sent; to[c] = slot_; what[c] = id_; old[c] = false
	:: else -> skip
	fi;
	c = 0
}

/* Whatever is under way is none of our business any more. */
inline leave()
{
	c = me * COPIES;
	do
	:: c < (me + 1) * COPIES ->
		if
		:: line[c] == sent -> old[c] = true
#ifndef ANY_ANSWER
		:: line[c] == created || line[c] == exists -> clear(c)
#endif
		:: else
		fi;
		c++
	:: else -> break
	od;
	c = 0
}

#ifdef ANY_ANSWER
#define HEARD(c) (line[c] == created || line[c] == exists)
#else
#define HEARD(c) ((line[c] == created || line[c] == exists) && !old[c])
#endif

proctype Writer(byte me)
{
	byte pos, mine, tries, k, id, c, i, times;
	bool applied, hedged, waiting, won;

	k = 1;
	do
	:: k > BATCHES -> break
	:: else ->
		id = ID(me, k); applied = false;
		do
		:: applied ->
			atomic { audit(id); assert(times == 1); times = 0 };	/* acknowledge */
			break
		:: !applied && (tries >= TRIES || pos >= N) -> goto unknown
		:: else ->
			atomic { tries++; mine = pos; hedged = false; waiting = true; won = false; send(pos, id) };
			do
			:: !waiting -> break
			:: atomic { HEARD(me * COPIES) || HEARD(me * COPIES + 1) ->	/* an answer */
				c = me * COPIES;
				if
				:: HEARD(c)
				:: HEARD(c + 1) -> c++
				fi;
				won = (line[c] == created); clear(c);
				waiting = false; leave()
			   };
				if
				:: won ->
#ifndef NO_WRITER_CHECK
					atomic {
						if
						:: floor_ > mine -> catch_up()
						:: else -> applied = true; pos = mine + 1
						fi
					}
#else
					atomic { applied = true; pos = mine + 1 }
#endif
				:: else ->
					atomic { catch_up() };
#ifdef EXISTS_IS_LOST
					applied = false
#endif
				fi
			:: atomic { waiting && !hedged ->	/* it is late */
				hedged = true;
#ifdef ANEW
				send(pos, id + AGAIN)
#else
#ifdef NEXT_SLOT
				if
				:: pos + 1 < N -> send(pos + 1, id)
				:: else
				fi
#else
				send(pos, id)
#endif
#endif
			   }
			:: atomic { waiting -> waiting = false; leave() }	/* no answer: the same again */
			:: atomic { waiting -> waiting = false; leave(); catch_up() }
			od
		od;
		k++
	od;
unknown:
	skip
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
		do
		:: w < WRITERS -> run Writer(w); w++
		:: else -> break
		od;
		w = 0;
		run Network();
		run Compactor()
	}
}
