/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * explore.h - every interleaving of two VMs over the real core (docs/simulator.md)
 *
 * Each VM has one CPU with a store buffer (x86-TSO), a program, and a doorbell handler that
 * interrupts the program and runs to its end. One execution is a list of choices; all are made.
 */
#ifndef VMCOMM_EXPLORE_H
#define VMCOMM_EXPLORE_H

#include <stdio.h>
#include <stdlib.h>

#include "conn.h"

#define X_UNIT	 2048 /* bytes that stand for one */
#define X_UNITS	 16
#define X_STORES 128
#define X_STACK	 (32 << 10)

enum x_state {
	X_DONE,
	X_RUN,
	X_BARRIER, /* until the CPU's store buffer is empty */
	X_SLEEP,   /* until it is woken */
	X_POLL,	   /* until memory has changed */
};

struct x_ctx {
	void *sp;
	u32 state;
	u64 memory;
	const char *what;
	void (*fn)(u32 vm);
	u32 vm;
};

struct x_entry {
	u8 *addr;
	u64 value;
	u32 len;
	u32 kind;
};

/* One direction of TCP, in units. What is written is on its way when the store buffer says so. */
struct x_pipe {
	u32 iss;
	u8 unit[X_UNITS];
	u32 written, sent, arrived, copied;
	bool fin, fin_sent, fin_in;
};

struct x_vm {
	struct vmcomm_node node;
	struct vmcomm_conn conn;
	bool up;
	bool irq, irq_runs;
	u32 locks;
	bool woken;
	u32 news; /* enum vmcomm_pair_news + 1 */
	u32 to_send, sent, received;
	u32 expect; /* units that the other one will have sent */
	bool eof, refused, closed;
	u32 step; /* of its program */
};

/* All of this is private memory of the VMs, and put back before each execution. */
struct x_world {
	struct x_vm vm[2];
	struct x_pipe pipe[2]; /* from VM 0, from VM 1 */
	struct x_ctx main[2], irq[2];
	struct x_entry q[2][X_STORES];
	u32 n[2];
};

extern struct x_world *x;
extern struct vmcomm_layout x_lay;
extern u8 *x_base;

struct x_scope {
	const char *name;
	const char *what;
	bool long_one; /* only with --full */
	void (*setup)(void);
	void (*program)(u32 vm);
	void (*check)(void); /* when nothing moves any more */
};

extern const struct x_scope x_scopes[];
extern const struct vmcomm_conn_ops x_conn_ops;
extern const struct vmcomm_backend_ops x_backend_ops;

void x_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void x_push(u32 vm, u32 kind, u64 value);
/* Sleep until the VM's "woken" is set, or until the other VM has changed anything in memory. */
void x_sleep(u32 vm, const char *what);
void x_poll(u32 vm, const char *what);

enum x_kind { X_WORD, X_BELL, X_SEGMENT, X_FIN };

#endif
