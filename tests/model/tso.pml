/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x86-TSO for spin: one FIFO store buffer per CPU in front of one memory.
 *
 * The including model defines first
 *	NWORDS	number of shared words (all start at 0)
 *	NCPU	number of CPUs; CPU c is a constant or a variable below NCPU
 *	SBMAX	depth of each store buffer (a store into a full buffer waits)
 *
 *	store(c, word, value)	into the buffer of CPU c
 *	load(c, word, var)	newest buffered value of that CPU, else memory
 *	mb(c)			waits until the buffer of CPU c is empty
 *
 * Loads stay in program order and stores leave in program order (so acquire, release, read and
 * write barriers cost nothing and are not written); a store may pass a later load, and that is
 * what mb() is for.  One drain process per CPU moves the oldest store to memory at any time.
 * Nothing else drains: a doorbell() in these models does not, a spinlock and a TCP segment do.
 */
byte mem[NWORDS];

typedef cpu_buffer {
	byte n;
	byte word[SBMAX];
	byte value[SBMAX]
}

cpu_buffer sb[NCPU];
hidden byte tso_i;

inline store(cpu_, word_, value_)
{
	d_step {
		sb[cpu_].n < SBMAX ->
		sb[cpu_].word[sb[cpu_].n] = word_;
		sb[cpu_].value[sb[cpu_].n] = value_;
		sb[cpu_].n++
	}
}

inline load(cpu_, word_, into_)
{
	d_step {
		into_ = mem[word_];
		tso_i = sb[cpu_].n;
		do
		:: tso_i > 0 ->
			tso_i--;
			if
			:: sb[cpu_].word[tso_i] == word_ ->
				into_ = sb[cpu_].value[tso_i];
				break
			:: else
			fi
		:: else -> break
		od;
		tso_i = 0
	}
}

inline mb(cpu_)
{
	sb[cpu_].n == 0
}

/* Free-running counters: differences are modulo 256, like the u64 arithmetic of the code. */
#define DIFF(a, b)		(((a) - (b)) & 255)
/* A position w lies in [old, new): the one test for "ring the doorbell". */
#ifdef MUT_CROSS
#define CROSSED(w, old, new)	(DIFF((new), (w)) < DIFF((new), (old)))
#else
#define CROSSED(w, old, new)	(DIFF((new) - (w), 1) < DIFF((new), (old)))
#endif

active [NCPU] proctype drain()
{
end:
	do
	:: d_step {
		sb[_pid].n > 0 ->
		mem[sb[_pid].word[0]] = sb[_pid].value[0];
		tso_i = 1;
		do
		:: tso_i < SBMAX ->
			sb[_pid].word[tso_i - 1] = sb[_pid].word[tso_i];
			sb[_pid].value[tso_i - 1] = sb[_pid].value[tso_i];
			tso_i++
		:: else -> break
		od;
		sb[_pid].word[SBMAX - 1] = 0;
		sb[_pid].value[SBMAX - 1] = 0;
		sb[_pid].n--;
		tso_i = 0
	   }
	od
}
