// SPDX-License-Identifier: GPL-2.0-or-later
/* scopes.c - small programs for two VMs with one connection, and what must be true at their end */
#include "explore.h"

static struct vmcomm_region region;

/* --- backend and callbacks --- */

static u32 vm_of(struct vmcomm_node *node)
{
	return (u32)(uintptr_t)node->priv;
}

static struct vmcomm_abi_pair *s_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	return vmcomm_region_pair_page(&region, owner, peer);
}

static int s_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count, void **mem)
{
	return vmcomm_region_map(&region, owner, chunk, count, mem);
}

static int s_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	memset(loc, 0, sizeof(*loc));
	loc->state = VMCOMM_SLOT_LIVE;
	loc->generation = 1;
	loc->vectors = 1;
	return 0;
}

static void s_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	if (slot != vm_of(node))
		x_push(vm_of(node), X_BELL, slot);
}

const struct vmcomm_backend_ops x_backend_ops = {
	.pair_page = s_pair_page,
	.map = s_map,
	.location = s_location,
	.doorbell = s_doorbell,
};

static bool s_hold(struct vmcomm_conn *conn)
{
	return true;
}

static void s_drop(struct vmcomm_conn *conn)
{
}

static void s_wake(struct vmcomm_conn *conn)
{
	x->vm[vm_of(conn->node)].woken = true;
}

static void s_news(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news)
{
	x->vm[vm_of(node)].news = news + 1;
	x->vm[vm_of(node)].woken = true;
}

static void s_offered(struct vmcomm_node *node, u32 slot, u32 idx)
{
}

const struct vmcomm_conn_ops x_conn_ops = {
	.hold = s_hold,
	.drop = s_drop,
	.wake = s_wake,
	.pair_news = s_news,
	.offered = s_offered,
};

/* --- an end of the connection --- */

static u32 write_seq(u32 vm)
{
	return x->pipe[vm].iss + x->pipe[vm].written * X_UNIT;
}

static u32 una(u32 vm)
{
	return x->pipe[vm].iss + x->pipe[vm].arrived * X_UNIT;
}

static u32 copied_seq(u32 vm)
{
	return x->pipe[!vm].iss + x->pipe[!vm].copied * X_UNIT;
}

static void tcp_put(u32 vm, u64 unit)
{
	struct x_pipe *p = &x->pipe[vm];

	if (p->fin)
		x_fail("VM %u puts bytes on TCP after a FIN", vm);
	if (p->written == X_UNITS)
		x_fail("too many units");
	p->unit[p->written++] = (u8)unit;
	x_push(vm, X_SEGMENT, 0);
}

static void unit_came(u32 vm, u64 unit, const char *from)
{
	struct x_vm *v = &x->vm[vm];

	if (unit != v->received + 1)
		x_fail("VM %u gets unit %llu from %s, number %u should come", vm,
		       (unsigned long long)unit, from, v->received + 1);
	v->received++;
}

/* The peer leaves, or is gone: the connection goes out of shared memory. */
static void work_off_news(u32 vm)
{
	struct x_vm *v = &x->vm[vm];
	u32 news = v->news;
	int err;

	v->news = 0;
	if (!news || news == VMCOMM_NEWS_UP + 1)
		return;
	for (;;) {
		err = vmcomm_conn_evict(&v->conn, copied_seq(vm), news == VMCOMM_NEWS_GONE + 1);
		if (err != -EAGAIN)
			break;
		x_poll(vm, "waits for the peer's final position");
	}
	if (err)
		x_fail("VM %u: evict says %d", vm, err);
	while (vmcomm_pair_released(&v->node, !vm) == -EAGAIN)
		x_poll(vm, "waits for the end of the peer's leave");
}

static void pending_out(u32 vm)
{
	u32 n, i;
	const u8 *p = vmcomm_tx_pending(&x->vm[vm].conn, &n);
	u64 unit;

	for (i = 0; i < n; i += X_UNIT) {
		memcpy(&unit, p + i, 8);
		tcp_put(vm, unit);
	}
	vmcomm_tx_pended(&x->vm[vm].conn, n);
}

static void broken(u32 vm)
{
	x_fail("VM %u: the core calls the connection broken", vm);
}

static void send_unit(u32 vm, u32 flags)
{
	struct x_vm *v = &x->vm[vm];
	u64 unit = v->sent + 1;
	u32 len;
	u8 *p;

	for (;;) {
		v->woken = false;
		work_off_news(vm);
		switch (vmcomm_tx_next(&v->conn, write_seq(vm), write_seq(vm), una(vm), flags)) {
		case VMCOMM_NEXT_RING:
			if (vmcomm_tx_room(&v->conn) < X_UNIT) {
				if (v->conn.broken)
					broken(vm);
				if (!vmcomm_tx_arm(&v->conn, X_UNIT))
					x_sleep(vm, "sleeps for room");
				break;
			}
			p = vmcomm_tx_window(&v->conn, &len);
			vmcomm_copy_to_shared(p, &unit, 8);
			v->sent++;
			vmcomm_tx_commit(&v->conn, X_UNIT);
			return;
		case VMCOMM_NEXT_TCP:
			v->sent++;
			tcp_put(vm, unit);
			return;
		case VMCOMM_NEXT_HELD:
			pending_out(vm);
			break;
		case VMCOMM_NEXT_WAIT:
			x_poll(vm, "sender waits for the peer's final position");
			break;
		default:
			broken(vm);
		}
	}
}

/* What must be on TCP before a FIN. */
static void flush(u32 vm)
{
	struct x_vm *v = &x->vm[vm];

	for (;;) {
		work_off_news(vm);
		switch (vmcomm_tx_next(&v->conn, write_seq(vm), write_seq(vm), una(vm), VMCOMM_TX_TCP)) {
		case VMCOMM_NEXT_HELD:
			pending_out(vm);
			break;
		case VMCOMM_NEXT_WAIT:
			x_poll(vm, "FIN waits for the peer's final position");
			break;
		case VMCOMM_NEXT_BROKEN:
			broken(vm);
			break;
		default:
			return;
		}
	}
}

static void send_fin(u32 vm)
{
	flush(vm);
	x->pipe[vm].fin = true;
	x_push(vm, X_FIN, 0);
}

/* Receive one unit or the end; sleeps for it. */
static void recv_unit(u32 vm)
{
	struct x_vm *v = &x->vm[vm];
	struct x_pipe *in = &x->pipe[!vm];
	u32 n, len, rcv_nxt, copied;
	const u8 *p;
	bool fin;
	u64 unit;

	while (!v->eof) {
		v->woken = false;
		work_off_news(vm);
		copied = copied_seq(vm);
		fin = in->fin_in;
		rcv_nxt = in->iss + in->arrived * X_UNIT + fin;
		switch (vmcomm_rx_next(&v->conn, copied, rcv_nxt, &n)) {
		case VMCOMM_NEXT_TCP:
			if (n > rcv_nxt - copied)
				x_fail("VM %u may read %u bytes of TCP, there are %u", vm, n,
				       rcv_nxt - copied);
			if (n >= X_UNIT) {
				unit_came(vm, in->unit[in->copied], "TCP");
				in->copied++;
				return;
			}
			if (n)
				v->eof = true;
			break;
		case VMCOMM_NEXT_RING:
		case VMCOMM_NEXT_HELD:
			p = vmcomm_rx_window(&v->conn, 0, &len);
			if (!p || len < X_UNIT)
				x_fail("VM %u: no window", vm);
			if (v->conn.rx.held_len)
				memcpy(&unit, p, 8);
			else
				vmcomm_copy_from_shared(&unit, p, 8);
			vmcomm_rx_consume(&v->conn, X_UNIT);
			unit_came(vm, unit, "a ring");
			return;
		case VMCOMM_NEXT_WAIT:
			if (fin && copied + 1 == rcv_nxt)
				v->eof = true;
			break;
		default:
			broken(vm);
		}
		if (!v->eof && !vmcomm_rx_arm(&v->conn, copied))
			x_sleep(vm, "sleeps for bytes");
	}
}

/* --- set-up: nothing else runs --- */

static void serve(void)
{
	u32 i, n, round;

	for (round = 0; round < 20; round++)
		for (i = 0; i < 2; i++) {
			for (n = 0; n < x->n[i]; n++)
				if (x->q[i][n].kind == X_SEGMENT)
					x->pipe[i].arrived = ++x->pipe[i].sent;
			memset(x->q[i], 0, sizeof(x->q[i]));
			x->n[i] = 0;
			while (vmcomm_node_event(&x->vm[i].node))
				;
		}
	x->vm[0].news = x->vm[1].news = 0;
}

static void start_vms(void)
{
	u32 i;

	vmcomm_layout_write(&x_lay, x_base, "explore", 1);
	if (vmcomm_region_init(&region, x_base, x_lay.size))
		abort();
	for (i = 0; i < 2; i++) {
		struct vmcomm_node_config config = {
			.backend = &x_backend_ops,
			.conn_ops = &x_conn_ops,
			.priv = (void *)(uintptr_t)i,
			.lay = &x_lay,
			.slot = i,
			.location_word = &vmcomm_layout_location(&x_lay, x_base, i)->location,
			.page = vmcomm_layout_slot(&x_lay, x_base, i),
			.has_tcp = true,
			.system = "",
			.version = "",
		};

		if (vmcomm_node_init(&x->vm[i].node, &config))
			x_fail("no node");
		x->vm[i].up = true;
		x->vm[i].node.ring_shift_first = x->vm[i].node.ring_shift_max = 12;
		x->pipe[i].iss = 1000 + i;
	}
	serve();
	if (!vmcomm_node_pair_up(&x->vm[0].node, 1) || !vmcomm_node_pair_up(&x->vm[1].node, 0))
		x_fail("the pair does not come up");
	for (i = 0; i < 2; i++)
		vmcomm_conn_init(&x->vm[i].conn, x->pipe[i].iss, x->pipe[!i].iss, !i);
}

static void offer(void)
{
	static const struct vmcomm_conn_names names;

	if (vmcomm_conn_offer(&x->vm[0].node, 1, &x->vm[0].conn, &names, false))
		x_fail("no offer");
	vmcomm_conn_ready(&x->vm[0].conn);
}

static void accept_it(void)
{
	static const struct vmcomm_conn_names names;

	if (vmcomm_conn_accept(&x->vm[1].node, 0, &x->vm[1].conn, &names))
		x_fail("no accept");
	vmcomm_conn_ready(&x->vm[1].conn);
}

/* Both directions have been in their rings; nobody sleeps. */
static void setup_rings(void)
{
	u32 i;

	start_vms();
	offer();
	accept_it();
	serve();
	for (i = 0; i < 2; i++) {
		send_unit(i, 0);
		serve();
		recv_unit(!i);
		serve();
	}
}

/* @a, @b: units that VM 0 and VM 1 will send; VM 1 has sent one of its already. */
static void setup_units(u32 a, u32 b)
{
	setup_rings();
	send_unit(1, 0);
	serve();
	x->vm[0].to_send = a;
	x->vm[1].to_send = b - 1;
	x->vm[0].expect = 1 + b;
	x->vm[1].expect = 1 + a;
}

/* Half of VM 0's ring is full. */
static void setup_ring(void)
{
	setup_rings();
	send_unit(0, 0);
	serve();
	x->vm[0].to_send = 2;
}

/*
 * VM 0's event queue is full, which VM 1 has not been told. What comes next overflows it, or finds
 * that VM 1 has looked at everything.
 */
static void setup_overflow(void)
{
	struct vmcomm_pair *pair;
	u32 i;

	setup_rings();
	pair = x->vm[0].node.pair[1];
	for (i = 0; i < VMCOMM_EVENTS; i++)
		vmcomm_pair_notify(pair, VMCOMM_EVENT(VMCOMM_EVENT_PAIR, 0, 0), false);
	x->vm[0].to_send = 2;
	x->vm[1].expect = 3;
}

static void setup_switch(void)
{
	setup_rings();
	x->vm[0].to_send = 3;
}

static void setup_both(void)
{
	setup_rings();
	x->vm[0].to_send = 2;
	x->vm[1].to_send = 2;
}

static void setup_to_leaver(void)
{
	setup_units(0, 2);
}

static void setup_from_leaver(void)
{
	setup_units(2, 1);
}

/* VM 1 has gone back to TCP, and enters its ring again when it sends. */
static void setup_enter(void)
{
	setup_rings();
	send_unit(1, VMCOMM_TX_TCP);
	serve();
	recv_unit(0);
	serve();
	x->vm[1].to_send = 1;
	x->vm[0].expect = 3;
}

static void setup_both_leave(void)
{
	setup_units(0, 2);
}

static void setup_offered(void)
{
	start_vms();
	offer();
	serve();
}

/* --- programs --- */

/* VM 0 fills its ring, VM 1 reads: both sleep and wake each other. */
static void program_ring(u32 vm)
{
	struct x_vm *v = &x->vm[vm];

	if (!vm) {
		while (v->to_send) {
			v->to_send--;
			send_unit(vm, 0);
		}
	} else {
		while (v->received < 4)
			recv_unit(vm);
	}
}

/* Each sends one, waits for the other's, and again: request and response. */
static void program_ping(u32 vm)
{
	struct x_vm *v = &x->vm[vm];

	while (v->to_send) {
		v->to_send--;
		if (!vm)
			send_unit(vm, 0);
		recv_unit(vm);
		if (vm)
			send_unit(vm, 0);
	}
}

/* Ring, TCP, ring, TCP: each change of path at any moment. */
static void program_switch(u32 vm)
{
	struct x_vm *v = &x->vm[vm];

	if (!vm) {
		while (v->to_send) {
			v->to_send--;
			send_unit(vm, v->to_send & 1 ? VMCOMM_TX_TCP : 0);
		}
		send_fin(vm);
	} else {
		while (!v->eof)
			recv_unit(vm);
	}
}

static void leave(u32 vm)
{
	struct x_vm *v = &x->vm[vm];
	int err;

	vmcomm_node_leave_begin(&v->node);
	vmcomm_conn_freeze(&v->conn);
	v->conn.rx_want = true;
	vmcomm_node_leave_publish(&v->node);
	while (v->conn.pair) {
		err = vmcomm_conn_evict(&v->conn, copied_seq(vm), false);
		if (err == -EAGAIN)
			x_poll(vm, "leaver waits for the peer's final position");
		else if (err)
			x_fail("VM %u: evict says %d", vm, err);
	}
	vmcomm_node_leave_done(&v->node);
	v->news = 0;
	/* It does not wait for an answer: its device goes, its memory stays as it is. */
	sim_lock(&v->node.lock);
	v->node.up = 0;
	sim_unlock(&v->node.lock);
	sim_mb();
	v->up = false;
}

static void send_rest(u32 vm)
{
	while (x->vm[vm].to_send) {
		x->vm[vm].to_send--;
		send_unit(vm, 0);
	}
	flush(vm);
}

static void recv_rest(u32 vm)
{
	while (x->vm[vm].received < x->vm[vm].expect)
		recv_unit(vm);
}

/* VM 0 leaves, and finishes alone. */
static void program_leave(u32 vm)
{
	if (!vm) {
		if (x->vm[0].to_send > 1) {
			x->vm[0].to_send--;
			send_unit(0, 0);
		}
		leave(0);
	}
	send_rest(vm);
	recv_rest(vm);
	while (vm && x->vm[1].node.pair[0]->state != VMCOMM_PEER_DOWN) {
		x->vm[1].woken = false;
		work_off_news(1);
		if (x->vm[1].node.pair[0]->state == VMCOMM_PEER_UP)
			x_sleep(1, "sleeps until it hears that the peer left");
	}
}

/* Both leave at the same time. */
static void program_both_leave(u32 vm)
{
	while (x->vm[vm].to_send) {
		x->vm[vm].to_send--;
		send_unit(vm, 0);
	}
	leave(vm);
	flush(vm);
	recv_rest(vm);
}

static void program_stream(u32 vm)
{
	send_rest(vm);
	recv_rest(vm);
}

/* One connection is taken out of shared memory, and its VM stays. */
static void program_evict(u32 vm)
{
	struct x_vm *v = &x->vm[vm];
	int err;

	if (!vm) {
		do {
			err = vmcomm_conn_evict(&v->conn, copied_seq(vm), false);
			if (err == -EAGAIN)
				x_poll(vm, "waits for the peer's final position");
		} while (err == -EAGAIN);
		if (err)
			x_fail("VM %u: evict says %d", vm, err);
	}
	send_rest(vm);
	recv_rest(vm);
}

/* The client closes while the server accepts and writes. */
static void program_close(u32 vm)
{
	struct x_vm *v = &x->vm[vm];

	if (!vm) {
		v->refused = vmcomm_conn_close(&v->conn);
		v->closed = true;
		return;
	}
	if (!v->step) {
		static const struct vmcomm_conn_names names;

		v->step = 1;
		if (!vmcomm_conn_accept(&v->node, 0, &v->conn, &names))
			vmcomm_conn_ready(&v->conn);
	}
	send_unit(vm, 0);
	flush(vm);
	vmcomm_conn_close(&v->conn);
}

/* --- what must be true --- */

static void all_done(void)
{
	u32 i;

	for (i = 0; i < 2; i++)
		if (x->main[i].state != X_DONE)
			x_fail("VM %u %s for ever", i, x->main[i].what);
}

static void check_streams(void)
{
	u32 i;

	all_done();
	for (i = 0; i < 2; i++) {
		if ((x->vm[i].eof || x->vm[i].expect) && x->vm[i].received != x->vm[!i].sent)
			x_fail("VM %u received %u units of %u", i, x->vm[i].received,
			       x->vm[!i].sent);
		if (x->vm[i].node.stat[VMCOMM_STAT_PEER_ERRORS])
			x_fail("VM %u counts errors of its peer", i);
	}
}

static void check_released(void)
{
	check_streams();
	/* Who stayed has let go of everything: nothing of the pair is in use. */
	if (x->vm[1].up && x->vm[1].node.heap.used)
		x_fail("VM 1 has %u chunks in use after the leave", x->vm[1].node.heap.used);
}

static void check_closed(void)
{
	struct x_pipe *p = &x->pipe[1];

	all_done();
	/* What it wrote is on TCP, where a reset answers it, or the client knew of it. */
	if (!x->vm[0].refused && p->written != x->vm[1].sent)
		x_fail("a unit that nobody will read was accepted without a word");
}

const struct x_scope x_scopes[] = {
	{"ring", "a ring of 2 units, 1 in it, 2 sent; both ends sleep", false, setup_ring, program_ring,
	 check_streams},
	{"ping", "2 requests and responses; doorbells in both directions", true, setup_both,
	 program_ping, check_streams},
	{"switch", "ring, TCP, ring, FIN", true, setup_switch, program_switch, check_streams},
	{"close", "accept and write against close", false, setup_offered, program_close, check_closed},
	{"evict", "one connection goes, the peer sends 1 more", false, setup_to_leaver, program_evict,
	 check_streams},
	{"enter", "one connection goes while the peer enters its ring", false, setup_enter,
	 program_evict, check_streams},
	{"overflow", "the queue of events is full; 2 sent, the reader sleeps", false, setup_overflow,
	 program_stream, check_streams},
	{"leave", "VM 0 leaves alone, VM 1 sends 1 more", false, setup_to_leaver, program_leave,
	 check_released},
	{"leave-from", "VM 0 sends 2 and leaves alone", true, setup_from_leaver,
	 program_leave, check_released},
	{"both-leave", "both leave, VM 1 sends 1 more", true, setup_both_leave, program_both_leave,
	 check_streams},
	{NULL, NULL, false, NULL, NULL, NULL},
};
