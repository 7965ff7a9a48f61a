/* Compaction epochs: do compactors without a lock destroy what others have installed?
 *
 * COMPACTORS replicas compact whenever they like. One claims an epoch by raising the
 * number in ROOT, writes a table under a name that has the epoch, and installs a
 * snapshot of that table, and of those of the snapshot that it began with, by a swap of
 * ROOT. Whoever holds the latest epoch sweeps: it deletes tables of earlier epochs that
 * the snapshot in ROOT does not need. Any of them may sleep between any two steps. A
 * swap may get no answer: it was performed or not, and who asked reads ROOT to find out.
 *
 * Tables are named by epoch, one each. A snapshot is a set of tables and how many
 * segments it holds. It is asserted that
 *   - all tables of the snapshot in ROOT are there (I8),
 *   - epoch and snapshot in ROOT never go back (I9), and
 *   - no segment that was installed is missing from a later snapshot.
 *
 * What can be left out:
 *   -DNO_FENCE        a snapshot is installed though another epoch was claimed
 *   -DNO_BASE_CHECK   a snapshot is installed though ROOT names another than it was built on;
 *                     nothing follows from that, for then the epoch is another as well
 *   -DBLIND_SWAP      ROOT is written, not swapped: what was read may be out of date
 *   -DUPLOAD_LATE     the table is written after the snapshot that names it was installed
 *   -DSWEEP_ALL       the sweep takes tables of its own epoch that are not installed yet,
 *                     by another round of the same process
 *   -DCLEAN_UP        a compactor whose swap got no answer deletes its table
 */
#ifndef COMPACTORS
#define COMPACTORS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define E (COMPACTORS * ROUNDS)	/* epochs, at most 7: sets of tables are bits of a byte */

byte epoch;			/* ROOT: the latest epoch */
byte names;			/* ROOT: the tables of the snapshot */
byte holds;			/* ROOT: segments in the snapshot */
byte there;			/* the tables in the bucket */
byte tail;			/* segments there are */

#define BIT(e) (1 << (e))

inline check() { assert((names & there) == names) }

proctype Compactor()
{
	byte mine, base, held, upto, seen, rounds, i, was;
	bool again;

	do
	:: rounds >= ROUNDS -> break
	:: else -> rounds++;
		/* Claim. Reading ROOT and the swap are one step: whoever was overtaken tries again. */
		atomic {
			if
			:: epoch >= E -> goto done
			:: else -> epoch++; mine = epoch; base = names
			fi;
			upto = tail
		};
#ifndef UPLOAD_LATE
		there = there | BIT(mine);
#endif
		/* Install. */
		again = true;
		do
		:: again ->
			again = false;
#ifdef BLIND_SWAP
			if :: epoch == mine && names == base -> skip :: else -> break fi;
#endif
			atomic {
				if
#ifndef BLIND_SWAP
#ifndef NO_FENCE
				:: epoch != mine -> break
#endif
#ifndef NO_BASE_CHECK
				:: names != base -> break
#endif
#endif
				:: else ->
					was = holds;
					if
					:: names = (base | BIT(mine)); holds = upto;
						/* merged: the tables before are not needed */
						if
						:: names = BIT(mine)
						:: skip
						fi;
						assert(holds >= was);
						if
						:: skip			/* answered */
						:: again = true		/* not answered: ask ROOT */
						fi
					:: again = true			/* lost on its way */
					fi
				fi;
				was = 0
			};
#ifdef CLEAN_UP
			if
			:: again -> there = there & ~BIT(mine); break
			:: else -> break
			fi
#else
			if
			:: again && (names & BIT(mine)) != 0 -> break	/* it was performed */
			:: again && rounds > ROUNDS -> break
			:: else
			fi
#endif
		:: !again -> break
		:: break					/* gives up */
		od;
#ifdef UPLOAD_LATE
		there = there | BIT(mine);
#endif
		/* Sweep, by what ROOT said at some moment. */
		atomic { seen = names; held = epoch };
#ifndef SWEEP_ALL
		held--;
#endif
		i = 1;
		do
		:: atomic { i <= held && (seen & BIT(i)) == 0 -> there = there & ~BIT(i); i++ }
		:: atomic { i <= held && (seen & BIT(i)) != 0 -> i++ }
		:: i > held -> break
		od;
		atomic { i = 0; seen = 0; held = 0; mine = 0; base = 0; upto = 0 }
	od;
done:	skip
}

/* The log grows. */
proctype Writer() { tail = 1; tail = 2 }

/* Somebody loads the snapshot at any moment. */
proctype Loader() { atomic { check() } }

init {
	byte c;
	atomic {
		do
		:: c < COMPACTORS -> run Compactor(); c++
		:: else -> break
		od;
		c = 0;
		run Writer(); run Loader()
	}
}
