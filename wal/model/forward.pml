/* Forwarding: is an operation that is sent to another replica performed once?
 *
 * A sender has one operation. It sends it to a leader in a message that is good for
 * one change of a number in the state, the sender's lane. The network delivers the
 * message any number of times, to any leader, at any time, or not at all; answers may
 * be lost. A leader commits what it has received if the lane has the number that the
 * message names, on the state before the slot that it wins. A sender that has waited
 * long enough commits the operation itself, and gives the lane another number with it.
 * A janitor may drop the lane. Claiming a slot is one step here, and what is claimed is
 * known to be won or lost: slots.pml and sessions.pml show what that takes.
 *
 * It is asserted that the operation
 *   - is in the history at most once,
 *   - is in it when it is acknowledged, and
 *   - never gets into it if its caller was told that nothing happened.
 *
 * What can be left out:
 *   -DNO_LANE_CHECK      a leader commits whatever it receives
 *   -DCHECK_ONCE         it looks at the lane when it receives, not after a lost slot again
 *   -DNO_VOID            the sender takes the operation back without changing the lane
 *   -DACK_ON_RECEIPT     the sender believes a leader that has received the message
 *   -DTIMEOUT_CONCLUDES  after no answer the caller is told that nothing happened
 *   -DMISSING_IS_FRESH   a lane that was dropped is taken for one that was never used
 * What can be added:
 *   -DJANITOR            the lane is dropped at any time
 */
#ifndef N
#define N 5
#endif
#ifndef LEADERS
#define LEADERS 2
#endif
#ifndef DELIVERIES
#define DELIVERIES 2		/* to each leader */
#endif

/* What a slot holds. FORWARDED and TAKEN perform the operation. */
#define OTHER     1
#define FORWARDED 2		/* and sets the lane to SENT */
#define TAKEN     3		/* and sets the lane to VOID */
#define DROPPED   4		/* deletes the lane */

/* Numbers of the lane. */
#define FRESH 0
#define SENT  1
#define VOID  2
#define GONE  3

byte slot[N], end;
bool sent, received, denied;

inline perform(what)
{
	slot[end] = what; end++;
	i = 0; times = 0;
	do
	:: i < end -> if :: slot[i] == FORWARDED || slot[i] == TAKEN -> times++ :: else fi; i++
	:: else -> break
	od;
	assert(times <= 1);
	assert(!denied || times == 0);
	i = 0; times = 0
}

/* The number of the lane in the state at pos. */
inline lane_at(n)
{
	lane = FRESH; i = 0;
	do
	:: i < n ->
		if
		:: slot[i] == FORWARDED -> lane = SENT
		:: slot[i] == TAKEN ->
#ifndef NO_VOID
			lane = VOID
#else
			skip
#endif
		:: slot[i] == DROPPED -> lane = GONE
		:: else
		fi;
		i++
	:: else -> break
	od;
#ifdef MISSING_IS_FRESH
	if :: lane == GONE -> lane = FRESH :: else fi;
#endif
	i = 0
}

inline acknowledge()
{
	i = 0; times = 0;
	do
	:: i < end -> if :: slot[i] == FORWARDED || slot[i] == TAKEN -> times++ :: else fi; i++
	:: else -> break
	od;
	assert(times == 1);
	i = 0; times = 0
}

proctype Sender()
{
	byte pos, lane, i, times;

	sent = true;
	/* It waits, and now and then it catches up. */
	do
	:: atomic { pos = end; lane_at(pos) };
		if
		:: lane == SENT -> atomic { acknowledge() }; goto done
		:: lane == GONE -> goto done			/* unknown */
		:: else
		fi
#ifdef ACK_ON_RECEIPT
	:: received -> atomic { acknowledge() }; goto done
#endif
	:: break						/* long enough */
	od;
#ifdef TIMEOUT_CONCLUDES
	atomic {
		denied = true;
		i = 0; times = 0;
		do
		:: i < end -> if :: slot[i] == FORWARDED || slot[i] == TAKEN -> times++ :: else fi; i++
		:: else -> break
		od;
		assert(times == 0);
		i = 0; times = 0
	};
	goto done;
#endif
	/* It commits the operation itself. */
	do
	:: atomic { pos = end; lane_at(pos) };
		if
		:: lane == SENT -> atomic { acknowledge() }; break
		:: lane == GONE -> break
		:: else
		fi;
		if
		:: pos >= N -> break				/* unknown, as far as we look */
		:: else
		fi;
		if
		:: atomic { end == pos -> perform(TAKEN); acknowledge() }; break
		:: atomic { end != pos -> skip }		/* lost the slot: again */
		fi
	od;
done:	skip
}

proctype Leader()
{
	byte pos, lane, i, times, deliveries;

	do
	:: sent && deliveries < DELIVERIES -> deliveries++; received = true;
		atomic { pos = end; lane_at(pos) };
		do
		:: pos >= N -> break
		:: else ->
#ifdef CHECK_ONCE
			lane = lane;
#endif
			if
#ifndef NO_LANE_CHECK
			:: lane != FRESH -> break		/* refused */
#endif
			:: else ->
				if
				:: atomic { end == pos -> perform(FORWARDED) }; break
				:: atomic { end != pos -> pos = end;
#ifndef CHECK_ONCE
						lane_at(pos)
#endif
					}
				fi
			fi
		od;
		atomic { pos = 0; lane = 0 }
	:: break
	od
}

/* Somebody else. */
proctype Rival()
{
	byte i, times;

	do
	:: atomic { end < N -> perform(OTHER) }
	:: break
	od
}

proctype Janitor()
{
	byte i, times;

	if
	:: atomic { end < N -> perform(DROPPED) }
	:: skip
	fi
}

init {
	byte l;
	atomic {
		run Sender();
		do
		:: l < LEADERS -> run Leader(); l++
		:: else -> break
		od;
		l = 0;
		run Rival();
#ifdef JANITOR
		run Janitor()
#endif
	}
}
