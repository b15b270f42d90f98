/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim.h - the simulated world: threads, time, memory, TCP, VMs, hosts (docs/simulator.md)
 *
 * One process, one thread of the real machine; everything follows from one 64-bit seed.
 */
#ifndef VMCOMM_SIM_H
#define VMCOMM_SIM_H

#include <stdio.h>
#include <stdlib.h>

#include "conn.h"
#include "group.h"

#define SIM_VMS_MAX	  64
#define SIM_HOSTS_MAX	  8
#define SIM_CPUS_MAX	  4   /* of one VM */
#define SIM_STORES_MAX	  24  /* depth of a store buffer */
#define SIM_THREADS_MAX	  1024
#define SIM_STACK	  (64 << 10)
#define SIM_CONNS_MAX	  4096 /* in the life of one seed */
#define SIM_QUEUE	  256
#define SIM_NEVER	  (~0ULL)
#define SIM_REGION_MAX	  (1ULL << 28)
#define SIM_LATE	  8 /* loads of one thread that may complete later */
#define SIM_PLAN_MAX	  64
#define SIM_LATE_CHUNKS	  64 /* of a slot that may be mapped late */

/* --- rng.c --- */

u64 sim_rng(void);
u32 sim_below(u32 n);		     /* 0 .. n-1 */
u32 sim_between(u32 low, u32 high);  /* low .. high */
bool sim_chance(u32 one_in);	     /* 0: never */
u32 sim_size(u32 max);		     /* 1 .. max, small ones often */

/* --- sched.c: threads and time --- */

struct sim_vm;

enum sim_thread_state {
	SIM_UNUSED,
	SIM_RUNNABLE,
	SIM_BLOCKED, /* until woken */
	SIM_STALLED, /* runnable, but its CPU does something else */
	SIM_PARKED,  /* runnable, but its VM is paused */
	SIM_DEAD,
};

struct sim_thread {
	void *sp;
	u32 id;
	u32 state;
	u32 run_at; /* place in the array of runnable threads */
	u32 locks;  /* spinlocks held */
	u32 lock_class[8];
	u32 lockless; /* inside a lockless section */
	bool softirq;
	bool timed_out;
	u64 sleep_nr; /* tells an old time-out from a new one */
	const void *wait_for;
	const char *what; /* it sleeps for, for humans */
	struct sim_vm *vm; /* NULL: the world */
	struct sim_cpu *cpu;
	void (*fn)(void *arg);
	void *arg;
	char name[32];
	u8 *stack;
	/* weak: copies out of shared memory that are not made yet */
	struct sim_late {
		u8 *dst;
		const u8 *src;
		u32 n;
	} late[SIM_LATE];
	u32 lates;
};

typedef void sim_event_fn(void *a, u64 b);

struct sim_thread *sim_spawn(struct sim_vm *vm, struct sim_cpu *cpu, const char *name,
			     void (*fn)(void *arg), void *arg);
void sim_kill_vm_threads(struct sim_vm *vm);
void sim_unpark(struct sim_vm *vm);
void sim_yield(void);
/* Sleep until sim_wake(@key), or @timeout units have passed (0: no limit). False: time is over. */
bool sim_sleep(const void *key, u64 timeout, const char *what);
void sim_wake(const void *key);
void sim_pause(u64 time);
void sim_stall(u64 time); /* whatever it holds: its CPU does something else */
void sim_at(u64 delay, sim_event_fn *fn, void *a, u64 b);
bool sim_stalled(const struct sim_vm *vm);
void sim_threads_print(void);
void sim_sched_run(void); /* until sim.finished */
void sim_sched_reset(void);
void sim_reschedule(void);
void sim_run_events(void);

/* --- port.c: memory --- */

struct sim_entry {
	u8 *addr;
	u8 *blob;
	u64 value;
	u64 nr;
	u32 len;
	u8 kind;
	u8 release;
};

struct sim_cpu {
	struct sim_entry q[SIM_STORES_MAX];
	u32 n;
	u64 nr;	   /* of the last entry that was put in */
	u64 floor; /* memory clock before which no load may look */
	struct sim_vm *vm;
	struct {
		u32 word;
		u64 clock;
	} seen[64]; /* coherence: a word is not read from before this */
};

void sim_cpu_drain(struct sim_cpu *cpu, u64 upto); /* entries up to number @upto */
void sim_cpu_drain_some(void);
void sim_cpu_lose(struct sim_cpu *cpu); /* what is on its way reaches memory in part */
void sim_drain_all(void);
void sim_cpu_doorbell(struct sim_cpu *cpu, u32 host, u32 slot, u32 vector);
void sim_memory_reset(void);
u64 sim_allocated(struct sim_vm *vm);
void *sim_alloc_for(struct sim_vm *vm, size_t n);
void sim_alloc_forget(struct sim_vm *vm);
/* What is in memory now: for checks, no step. */
u64 sim_peek(const void *p, u32 size);
void sim_poke(void *p, u64 v, u32 size); /* whoever's it is */
void sim_late_settle(void);		 /* the values of earlier loads are needed now */

/* --- tcp.c --- */

struct sim_sock;
struct sim_segment;

/* One direction of a connection. Everything here is the guests' private memory. */
struct sim_tcp {
	struct sim_sock *from, *to;
	u8 *buf;
	u32 size;      /* of buf and of the window */
	u32 write_seq; /* sender */
	u32 una;       /* sender: the receiver has all before it */
	u32 edge;      /* sender: what the receiver has room for ends here */
	u32 rcv_nxt;   /* receiver, a FIN counts one */
	u32 copied_seq;
	u32 fin_seq;
	bool fin_sent, fin_in;
	u32 flying; /* segments and acknowledgements on their way */
	u64 last_arrival;
	struct sim_segment *first, *last; /* on their way */
	u32 ts_recent; /* receiver: the newest time stamp */
};

u32 sim_tcp_room(struct sim_tcp *t);
u32 sim_tcp_send(struct sim_tcp *t, const u8 *data, u32 n);
void sim_tcp_fin(struct sim_tcp *t);
u32 sim_tcp_recv(struct sim_tcp *t, u8 *data, u32 n);
void sim_tcp_acked(struct sim_tcp *t, u32 seq, u32 edge);
u32 sim_tcp_peek(const struct sim_tcp *t, u32 off, u8 *data, u32 n);
void sim_tcp_reset(struct sim_sock *from);
void sim_tcp_init(struct sim_tcp *t, struct sim_sock *from, struct sim_sock *to, u32 isn);

/* --- socket.c --- */

struct sim_sock {
	struct vmcomm_conn conn;
	struct sim_vm *vm;
	struct sim_sock *peer;
	u32 id;
	bool client;
	struct sim_tcp *out, *in;
	u32 holds;
	bool established; /* application threads run */
	bool reset;	  /* by the peer or by TCP giving up */
	bool broken;	  /* the core said so */
	bool closed;
	bool crashed; /* its VM did */
	bool vm_died; /* perhaps after it was closed */
	bool lost; /* it was in shared memory when its VM lost the device */
	bool reverted; /* one of the two VMs was set back to an earlier state */
	bool set_back; /* the same, and it goes on from what it was then (image.c) */
	u32 ts_frozen; /* its clock is what it was then; 0: it was not set back */
	bool refused; /* it told its peer that bytes were lost */
	bool want_close;
	bool ready;
	struct sim_thread *owner; /* of the socket lock */
	u64 wakes;		  /* counts wake-ups of the wait queue */
	u32 threads;
	u64 sent, received; /* by the application */
	u64 total;	    /* that the application wants to send */
	u64 stop_at;	    /* the application closes early; SIM_NEVER */
	bool eof, sent_fin;
	bool rx_asleep, tx_asleep;
	u32 tx_room; /* that the sleeping sender asked for; 0: it waits for TCP */
	u32 piece_max;
	u32 think; /* 0: none */
	u32 oob;   /* one send in so many uses VMCOMM_TX_TCP */
	u32 app;   /* enum sim_app */
	u32 peek;  /* one read in so many is preceded by a peek; 0: none */
	bool turns; /* it sends again when all has been received: questions and answers */
	u32 rx_seen; /* bytes that a sleeping peek has seen: it waits for more */
	bool edge; /* an edge-triggered waiter has something to look at */
	u64 told;  /* position that it was told of last, in this use of its half */
	u32 told_gen;
};

/* What kind of program uses the socket? */
enum sim_app {
	SIM_APP_BLOCK, /* calls that sleep; a thread for each direction */
	SIM_APP_LEVEL, /* poll() before each call; a thread for each direction */
	SIM_APP_EDGE,  /* edge-triggered epoll; a thread for each direction */
	SIM_APP_LOOP,  /* poll() for both in one thread */
	SIM_APPS
};

void sim_sock_establish(struct sim_sock *s); /* handshake done at this end, softirq */
void sim_sock_run(struct sim_sock *s);	     /* start the application's threads */
void sim_sock_lock(struct sim_sock *s);
void sim_sock_unlock(struct sim_sock *s);
void sim_sock_wake(struct sim_sock *s);
void sim_sock_ready(struct sim_sock *s); /* the same, and edge-triggered waiters look */
bool sim_sock_over(const struct sim_sock *s);
void sim_sock_broken(struct sim_sock *s);
void sim_sock_wait(struct sim_sock *s, u64 seq, bool *asleep, u64 timeout, const char *what);
void sim_sock_send(struct sim_sock *s, u32 n, u32 flags);
u32 sim_sock_recv(struct sim_sock *s, u32 max, u32 flags);
bool sim_sock_shutdown(struct sim_sock *s, bool wait);
void sim_sock_early_close(struct sim_sock *s);
bool sim_sock_turn(const struct sim_sock *s);
void sim_sock_reverted(struct sim_sock *s);
void sim_sock_doubt(struct sim_sock *s, bool wait);
void sim_sock_reset(struct sim_sock *s);
void sim_sock_reoffer(struct sim_sock *s);
void sim_sock_accept(struct sim_sock *s);
int sim_sock_evict(struct sim_sock *s, u32 slot);
void sim_sock_idle(struct sim_sock *s);
u8 sim_byte(const struct sim_sock *sender, u64 pos);

/* Flags of sim_sock_send(), beside the core's, and of sim_sock_recv(). */
#define SIM_SEND_NOWAIT 0x100
#define SIM_RECV_NOWAIT 1
#define SIM_RECV_FULL	2 /* go on until nothing is left, as a system call does */

/* --- poll.c --- */

void sim_poll_receiver(struct sim_sock *s);
void sim_poll_sender(struct sim_sock *s);
void sim_poll_loop(struct sim_sock *s);
void sim_sock_peeks(struct sim_sock *s, bool wait);
void sim_sock_tell(struct sim_sock *s);
void sim_sock_rearm(struct sim_sock *s, bool all);

/* --- vm.c --- */

enum sim_work_kind {
	SIM_WORK_SYN,
	SIM_WORK_SYNACK,
	SIM_WORK_ACK,
	SIM_WORK_NEWS,
	SIM_WORK_OFFERED,
	SIM_WORK_IDLE,
	SIM_WORK_SWITCH,
	SIM_WORK_FLOOD,
	SIM_WORK_POLL,
	SIM_WORK_EVICT,
	SIM_WORK_HOG,
};

struct sim_work {
	u32 kind;
	u32 a, b;
	struct sim_sock *sock;
};

struct sim_queue {
	struct sim_work work[SIM_QUEUE];
	u32 head, tail;
	bool busy;
};

struct sim_vm {
	u32 id;
	char name[16];
	u32 group;
	bool newer; /* a later minor version of the ABI */
	u32 target; /* host to go to next + 1; 0: any */
	u32 life; /* counts boots */
	u8 addr[16];
	u8 uuid[16];
	struct vmcomm_node node;
	bool node_up;
	bool plugged;
	bool lost; /* its device has gone without a word: reads are all ones, writes go nowhere */
	bool paused;
	bool crashed;
	bool moving; /* leaving, away or arriving */
	bool busy;   /* a fault is being made with it */
	bool leaving;
	bool enabled;
	u32 refs; /* of node, by softirq and workers */
	u32 lockless;
	u32 host, slot;
	u32 ncpu;
	struct sim_cpu cpu[SIM_CPUS_MAX];
	u32 irqs;	/* doorbells on their way to it */
	bool irq, irq_host; /* pending */
	u32 irq_busy;
	bool deaf; /* a doorbell was lost on purpose since the last tick */
	bool in_tick;
	u32 ticks; /* more that come at once: its clock jumped */
	u32 ticked; /* counts them */
	struct sim_queue net, work;
	u32 ring_first, ring_max;
	u32 maps; /* of chunks of peers */
	u32 mapping; /* that were asked for and will be possible */
	u32 spare;   /* room that was made for them */
	struct {
		u32 users;
		bool there; /* it needs no room */
	} mapped[VMCOMM_SLOTS_MAX][SIM_LATE_CHUNKS]; /* chunks of peers */
};

void sim_vm_start(struct sim_vm *vm, bool boot);
void sim_vm_join(struct sim_vm *vm);
void sim_handshake(struct sim_sock *from, u32 kind, struct sim_cpu *cpu);
void sim_vm_crash(struct sim_vm *vm);
void sim_vm_end(struct sim_vm *vm);
void sim_vm_boot(struct sim_vm *vm);
void sim_sock_dies(struct sim_sock *s);
void sim_vm_irq(struct sim_vm *vm, u32 vector);
void sim_vm_leave(struct sim_vm *vm);
void sim_vm_post(struct sim_queue *q, u32 kind, u32 a, u32 b, struct sim_sock *s);
bool sim_vm_get(struct sim_vm *vm);
void sim_vm_put(struct sim_vm *vm);
void sim_vm_pause(struct sim_vm *vm, bool pause);
extern const struct vmcomm_conn_ops sim_conn_ops;

/* --- host.c --- */

struct sim_host {
	u32 id;
	u32 group_nr;
	u8 *base;
	u64 size, used;
	struct vmcomm_layout lay;
	struct vmcomm_region region;
	struct vmcomm_group group;
	struct sim_vm *vm[VMCOMM_SLOTS_MAX];
	struct sim_vm *last[VMCOMM_SLOTS_MAX]; /* also when it has gone */
	u64 number[VMCOMM_SLOTS_MAX];	       /* location numbers */
	struct sim_thread *busy;
	struct sim_cpu cpu;
};

extern const struct vmcomm_backend_ops sim_backend_ops;
void sim_unmap_idle(struct sim_vm *vm);
void sim_host_init(struct sim_host *h, u32 id);
int sim_host_admit(struct sim_host *h, struct sim_vm *vm);
void sim_host_move(struct sim_host *h, u32 slot, u32 state);
void sim_host_tick(void *host);
void sim_host_deliver(u32 host, u32 slot, u32 vector);
struct sim_host *sim_host_of(const void *p);
void sim_host_restart(struct sim_host *h);

/* --- image.c --- */

struct sim_image;
struct sim_image *sim_image_take(struct sim_vm *vm);
void sim_image_restore(struct sim_vm *vm, struct sim_image *image);
bool sim_image_old(const struct sim_image *image);
void sim_image_free(struct sim_image *image);

/* --- liar.c --- */

void sim_liar(void *arg);

/* --- chaos.c, check.c --- */

void sim_world(void *arg);
void sim_check_idle(void);
void sim_check_rest(void);
void sim_check_show_open(void);
void sim_check_show(void); /* after a failure */

/* --- main.c --- */

/* What the command line says; -1: the seed says. */
struct sim_force {
	int vms, hosts, conns, bytes, weak, faults, mask, lies, oom, late, app;
};

extern struct sim_force force;
extern bool sim_shrinks;
void sim_one(u64 seed, bool trace, int fd);
int sim_shrink(u64 seed);
void sim_options(char *text, size_t size);
void sim_shrink_exec(void) __attribute__((noreturn));

struct sim_profile {
	u32 vms, hosts, conns, chunk_shift, slots;
	u64 region;
	bool weak;
	u32 switch_mean; /* steps between two switches */
	u32 burst;	 /* one in so many switches is followed by a long run; 0: none */
	u32 stall;	 /* one switch in so many stalls the thread */
	u32 drain;	 /* one step in so many drains a store */
	u32 early;	 /* weak: one load in so many is early */
	u32 tcp_delay, bell_delay;
	u32 window;
	u32 tick;
	u32 faults; /* number of them */
	u32 groups; /* on hosts of their own; with two, somebody in the second one lies */
	u32 lies;   /* average time between two; 0: none */
	u32 fault_mask;
	u32 bytes;
	u32 oom; /* one allocation in so many fails */
	u32 late; /* one mapping of a peer's memory in so many has to wait */
};

enum sim_fault {
	SIM_FAULT_MOVE,
	SIM_FAULT_MOVE_TWO,
	SIM_FAULT_PAUSE,
	SIM_FAULT_CRASH,
	SIM_FAULT_REBOOT,
	SIM_FAULT_IDLE,
	SIM_FAULT_SWITCH,
	SIM_FAULT_LOSE,
	SIM_FAULT_FLOOD,
	SIM_FAULT_EVICT,
	SIM_FAULT_TOUR,	  /* three moves in a row */
	SIM_FAULT_MEET,	  /* both ends of connections to the same host */
	SIM_FAULT_DAEMON, /* restart of the host's daemon */
	SIM_FAULT_CLOCK,
	SIM_FAULT_HOG, /* shared memory is used up */
	SIM_FAULT_REVERT, /* a snapshot */
	SIM_FAULT_RESTORE, /* a snapshot that goes on */
	SIM_FAULT_REMOVE, /* the device goes without a word */
	SIM_FAULTS
};

struct sim {
	u64 seed;
	u64 schedule; /* another schedule for the same plan */
	u64 drop;     /* faults of the plan that do not happen, a bit each */
	u64 rng;
	u64 steps;
	u64 now;
	u64 next_event;
	s32 until_switch;
	u64 memory_clock;
	bool finished;
	bool faults_over;
	bool trace;
	struct sim_thread *cur;
	struct sim_profile p;
	struct sim_vm vm[SIM_VMS_MAX];
	struct sim_host host[SIM_HOSTS_MAX];
	struct sim_sock *sock[SIM_CONNS_MAX * 2];
	u32 socks;
	u32 lose; /* one doorbell in so many is lost */
	bool lying;   /* lies may come */
	bool spoiled; /* somebody has lied */
	bool over;    /* connections of the group that was lied to end now */
	u32 reverts;  /* of this seed */
	u32 removes;
	u32 restores;
	struct {
		u32 delay, fault, vm;
	} plan[SIM_PLAN_MAX];
	struct {
		u64 progress, doorbells, bells_lost, bytes, ring_bytes, held, pended, switches, faults[SIM_FAULTS],
			conns, eofs, resets, backstops, attached, moves, evicts, early, late, unanswered, reclaims, lies, meets, reverts, late_maps,
			polls, spurious, peeks, restores, set_backs, found;
	} count;
};

extern struct sim sim;
extern const char *const sim_fault_name[SIM_FAULTS];
extern const char *const sim_app_name[SIM_APPS];

void sim_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void sim_trace_(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define sim_trace(...)                                                                             \
	do {                                                                                       \
		if (__builtin_expect(sim.trace, 0))                                                \
			sim_trace_(__VA_ARGS__);                                                   \
	} while (0)

/* May the streams of this socket be anything, as somebody lied to its VM? */
static inline bool sim_garbled(const struct sim_sock *s)
{
	return s->reverted || (sim.spoiled && (s->vm->group || s->peer->vm->group));
}

/* The same, or may it end at any moment, as its VM lost the device or was set back? */
static inline bool sim_spoiled(const struct sim_sock *s)
{
	return s->lost || s->set_back || sim_garbled(s);
}

/* One step: called at each access. */
static inline void sim_step(void)
{
	sim.steps++;
	sim.now++;
	if (__builtin_expect(!sim.cur, 0))
		return;
	if (sim.now >= sim.next_event)
		sim_run_events();
	sim_cpu_drain_some();
	if (--sim.until_switch <= 0)
		sim_reschedule();
}

#endif
