/* Chunks: may an upload rely on a chunk that the garbage collector is removing?
 *
 * One content, of which several copies may be uploaded; each copy is an object of
 * its own. Pushers publish a path that needs the content: they use the copy that the
 * state knows, or upload one. Somebody withdraws the paths. The collector condemns
 * the copy once nothing refers to it, by a segment, and deletes the object then; it
 * also sweeps copies that were uploaded and never published. Claiming a slot is one
 * step that fails if the claimant has not applied all slots before: slots.pml shows
 * what it takes to make it one.
 *
 * It is asserted that whenever the collector has deleted something, and at the end
 * of every push, the content of a published path is there (I6, I8).
 *
 * What can be left out:
 *   -DNO_REVALIDATION  a push that lost a slot is sent to the next one as it was
 *   -DSAME_NAME        a copy uploaded anew has the name of the old one (I7)
 *   -DNO_UPLOAD_EPOCH  the sweep deletes every copy that no segment has made known
 */
#ifndef COPIES
#define COPIES 4
#endif
#ifndef SLOTS
#define SLOTS 8
#endif
#ifndef PUSHERS
#define PUSHERS 2
#endif
#define NONE 255

mtype = { PUBLISH, WITHDRAW, CONDEMN, NEW_EPOCH };
mtype kind[SLOTS];
byte copy[SLOTS];		/* of PUBLISH and CONDEMN */
byte end;

bool stored[COPIES];		/* the object is in the bucket */
byte epoch_of[COPIES];		/* the upload epoch in its name */
byte uploads;

/* What a replica makes of the slots it has applied. */
typedef Replica {
	byte pos;
	byte current;		/* the copy that the content is read from */
	byte paths;		/* published and not withdrawn */
	byte epoch;
	bool condemned[COPIES];
	bool known[COPIES]
};

inline catch_up(s)
{
	atomic {
		do
		:: s.pos < end ->
			if
			:: kind[s.pos] == PUBLISH ->
				s.current = copy[s.pos]; s.paths++; s.known[copy[s.pos]] = true
			:: kind[s.pos] == WITHDRAW ->
				if
				:: s.paths > 0 -> s.paths--
				:: else
				fi
			:: kind[s.pos] == CONDEMN ->
				s.condemned[copy[s.pos]] = true;
				if
				:: s.current == copy[s.pos] -> s.current = NONE
				:: else
				fi
			:: kind[s.pos] == NEW_EPOCH -> s.epoch++
			fi;
			s.pos++
		:: else -> break
		od
	}
}

inline claim(s, what, which, won)
{
	atomic {
		won = (s.pos == end && end < SLOTS);
		if
		:: won -> kind[end] = what; copy[end] = which; end++
		:: else
		fi
	}
}

inline audit()
{
	atomic {
		i = 0; read_from = NONE; alive = 0;
		do
		:: i < end ->
			if
			:: kind[i] == PUBLISH -> read_from = copy[i]; alive++
			:: kind[i] == WITHDRAW ->
				if
				:: alive > 0 -> alive--
				:: else
				fi
			:: else
			fi;
			i++
		:: else -> break
		od;
		assert(alive == 0 || read_from == NONE || stored[read_from]);
		i = 0; read_from = 0; alive = 0
	}
}

proctype Pusher()
{
	Replica s;
	byte mine = NONE, tries, i, read_from, alive;
	bool won, uploaded;

	s.current = NONE;
	catch_up(s);
	do
	:: tries >= 3 -> break
	:: else ->
		tries++;
		if
		:: mine == NONE && s.current != NONE -> mine = s.current; uploaded = false
		:: mine == NONE && s.current == NONE ->
			atomic {
#ifdef SAME_NAME
				mine = 0;
#else
				if
				:: uploads < COPIES -> mine = uploads; uploads++
				:: else -> break
				fi;
#endif
				epoch_of[mine] = s.epoch; stored[mine] = true; uploaded = true
			}
		:: else
		fi;
		claim(s, PUBLISH, mine, won);
		catch_up(s);
		if
		:: won -> break
		:: else
#ifndef NO_REVALIDATION
			atomic {
				if
				:: s.condemned[mine] -> mine = NONE
				:: !s.condemned[mine] && uploaded && !s.known[mine] && epoch_of[mine] < s.epoch -> mine = NONE
				:: else
				fi
			}
#endif
		fi
	od;
	audit()
}

proctype Withdrawer()
{
	Replica s;
	bool won;

	s.current = NONE;
	do
	:: s.paths > 0 -> claim(s, WITHDRAW, 0, won); catch_up(s); if :: won -> break :: else fi
	:: else -> if :: break :: catch_up(s) fi
	od
}

proctype Collector()
{
	Replica s;
	byte victim, i, read_from, alive, j;
	bool won;

	s.current = NONE;
	catch_up(s);
	if
	:: s.paths == 0 && s.current != NONE ->
		victim = s.current;
		claim(s, CONDEMN, victim, won);
		if
		:: won -> stored[victim] = false; audit()
		:: else
		fi;
		catch_up(s)
	:: else
	fi;

	won = true;
#ifndef NO_UPLOAD_EPOCH
	claim(s, NEW_EPOCH, 0, won);
	catch_up(s);
#endif
	do
	:: won && j < COPIES ->
		if
#ifdef NO_UPLOAD_EPOCH
		:: stored[j] && !s.known[j] -> stored[j] = false; audit()
#else
		:: stored[j] && !s.known[j] && epoch_of[j] < s.epoch -> stored[j] = false; audit()
#endif
		:: else
		fi;
		j++
	:: else -> break
	od
}

init {
	byte p;
	atomic {
		do
		:: p < PUSHERS -> run Pusher(); p++
		:: else -> break
		od;
		p = 0;
		run Withdrawer();
		run Collector()
	}
}
