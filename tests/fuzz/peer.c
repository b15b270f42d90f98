// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peer.c - two VMs go on with what they do while the input says what is written into their region
 *
 * One byte chooses what happens next, the bytes after it say how: words of CCBs (slice), of pair
 * pages (hello), event queues and offers change to anything, also whole pieces of them; in between
 * the VMs send, receive, offer, accept, leave, start anew. The fixture is the unit tests'. The region
 * has exactly its size, so that AddressSanitizer sees each access outside of it; a loop without end is
 * the fuzzer's time-out.
 */
#include "fixture.h"

#define ENDS 6

void fuzz_port_reset(void);

static void *place(struct fix *f, struct fend **e, struct fuzz_input *in, u8 what, u32 *room)
{
	u8 who = fuzz_u8(in);
	u32 a = who & 1, at = fuzz_u16(in);
	struct vmcomm_abi_pair *p = vmcomm_layout_pair(&f->lay, f->mem, a, !a);
	struct fend *x = e[(who >> 1) % ENDS];
	u8 *base;

	switch (what % 8) {
	case 0:
	case 1:
	case 2: /* a CCB, most of the time its words that matter */
		if (x && who & 0x80)
			x = x->peer;
		if (x && vmcomm_conn_attached(&x->conn)) {
			base = (u8 *)x->conn.mine;
			at = at % 64 * 4;
			break;
		}
		/* fall through */
	case 3: /* hello, state, positions */
		base = (u8 *)p;
		at = at % 64 * 4;
		break;
	case 4:
		base = (u8 *)p->ccb_chunk;
		at = at % 8 * 4;
		break;
	case 5:
		base = (u8 *)p->ev;
		at = at % VMCOMM_EVENTS * 8;
		break;
	case 6:
		base = (u8 *)p->offer;
		at = at % VMCOMM_OFFERS * 4;
		break;
	default: /* anywhere, the header and the location table too */
		base = f->mem;
		at = (at << 8 | fuzz_u8(in)) * 4 % (u32)f->lay.size;
	}
	*room = (u32)((u8 *)f->mem + f->lay.size - (base + at));
	return base + at;
}

static void attack(struct fix *f, struct fend **e, struct fuzz_input *in, u8 how)
{
	const uint8_t *bytes;
	u32 room, n;
	u8 *at = place(f, e, in, how, &room);
	u64 v;

	switch (how >> 3 & 7) {
	case 0: /* a small step */
		memcpy(&v, at, 4);
		v += (u64)(int8_t)fuzz_u8(in);
		memcpy(at, &v, 4);
		break;
	case 1:
		v = 1ULL << (fuzz_u8(in) & 63);
		memcpy(at, &v, (u64)room < 8 ? 4 : 8);
		break;
	case 2: /* a piece */
		n = (u32)fuzz_bytes(in, fuzz_u8(in), &bytes);
		memcpy(at, bytes, n < room ? n : room);
		break;
	case 3:
		memset(at, fuzz_u8(in), room < 256 ? room : 256);
		break;
	case 4:
		v = fuzz_number(in, 8);
		memcpy(at, &v, room < 8 ? 4 : 8);
		break;
	default:
		v = fuzz_u32(in);
		memcpy(at, &v, 4);
	}
}

static void restart(struct fix *f, struct fend **e, u32 a)
{
	struct fend *x;
	u32 i;

	vmcomm_node_leave_begin(&f->vm[a].node);
	for (i = 0; i < ENDS; i++) {
		x = e[i] && e[i]->vm->slot != a ? e[i]->peer : e[i];
		if (!x)
			continue;
		vmcomm_conn_freeze(&x->conn);
		if (vmcomm_conn_evict(&x->conn, fend_copied_seq(x), false))
			vmcomm_conn_close(&x->conn);
	}
	vmcomm_node_leave_publish(&f->vm[a].node);
	vmcomm_node_leave_done(&f->vm[a].node);
	f->vm[a].news_count = 0;
	fix_stop(f, a);
	for (i = 0; i < 100 && !f->vm[a].up; i++) {
		fix_row(f, 0, VMCOMM_SLOT_LIVE, 1);
		fix_row(f, 1, VMCOMM_SLOT_LIVE, 1);
		if (fix_start(f, a) == -EAGAIN) {
			vmcomm_node_event(&f->vm[!a].node);
			while (fix_work(f, &f->vm[!a]))
				;
			if (i > 50)
				memset(vmcomm_layout_pair(&f->lay, f->mem, !a, a), 0,
				       sizeof(struct vmcomm_abi_pair));
		}
	}
	fuzz_check(f->vm[a].up);
}

static void use(struct fix *f, struct fend **e, struct fuzz_input *in, u8 what)
{
	u8 who = fuzz_u8(in);
	struct fend *x = e[who % ENDS];
	struct vmcomm_conn_names names;
	struct vmcomm_rx_plan plan;
	struct fvm *vm;
	u32 len, l, r;

	if (!x) {
		x = e[who % ENDS] = fend_pair(f, who >> 7, !(who >> 7));
		if (!fend_offer(x, who & 0x40) && !(who & 0x20))
			fend_accept(x->peer);
		vmcomm_conn_ready(&x->conn);
		vmcomm_conn_ready(&x->peer->conn);
	}
	if (who & 0x10)
		x = x->peer;
	vm = x->vm;
	switch (what & 15) {
	case 0:
	case 1:
		fend_send(x, fuzz_u16(in), what & 16 ? VMCOMM_TX_TCP : 0);
		break;
	case 2:
	case 3:
		fend_recv(x, fuzz_u16(in));
		break;
	case 4:
		vmcomm_rx_plan(&x->conn, fend_copied_seq(x), fend_rcv_nxt(x), &plan);
		fuzz_check((u64)plan.before + plan.after <= fend_rcv_nxt(x) - fend_copied_seq(x));
		break;
	case 5:
		/* What is said to be readable can be read: a reader at the end of file relies on it. */
		if (vmcomm_rx_readable(&x->conn, fend_copied_seq(x))) {
			enum vmcomm_next next = vmcomm_rx_next(&x->conn, fend_copied_seq(x),
							       fend_rcv_nxt(x), &len);

			fuzz_check(next != VMCOMM_NEXT_WAIT && (next != VMCOMM_NEXT_TCP || len));
		}
		vmcomm_rx_unread(&x->conn);
		vmcomm_rx_arm(&x->conn, fend_copied_seq(x));
		vmcomm_rx_arm_edge(&x->conn);
		vmcomm_rx_fin(&x->conn);
		vmcomm_conn_peer_closed(&x->conn);
		break;
	case 6:
		vmcomm_tx_arm(&x->conn, fuzz_u32(in));
		vmcomm_tx_writable(&x->conn);
		vmcomm_tx_unread(&x->conn);
		break;
	case 7:
		vmcomm_tx_idle(&x->conn);
		vmcomm_conn_poll(&x->conn);
		break;
	case 8:
		if (vmcomm_conn_attached(&x->conn))
			vmcomm_conn_evict(&x->conn, fend_copied_seq(x), what & 16);
		break;
	case 9:
		vmcomm_conn_close(&x->conn);
		break;
	case 10:
		vmcomm_node_event(&vm->node);
		break;
	case 11:
		vmcomm_node_tick(&vm->node);
		break;
	case 12:
		vmcomm_tx_exit(&x->conn, VMCOMM_REASON_URGENT);
		vmcomm_rx_window(&x->conn, fuzz_u32(in), &len);
		break;
	case 13:
		l = fuzz_u32(in);
		vmcomm_offer_names(&vm->node, !vm->slot, l, &names);
		vmcomm_offer_read(&vm->node, !vm->slot, l, &l, &r);
		break;
	case 14:
		vmcomm_node_refresh(&vm->node);
		vmcomm_node_leave_answered(&vm->node);
		break;
	default:
		if (what & 16)
			restart(f, e, vm->slot);
		else
			x->broken = true;
	}
	fix_work(f, vm);
	if (x->broken || x->peer->broken) {
		fend_free(e[who % ENDS]);
		e[who % ENDS] = NULL;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct fend *e[ENDS] = {NULL};
	struct fix *f;
	u32 i;
	u8 op;

	fuzz_port_reset();
	f = fix_new(2, VMCOMM_REGION_MIN, VMCOMM_CHUNK_SHIFT_MIN);
	for (i = 0; i < 2; i++)
		fuzz_check(!fix_start(f, i));
	fix_run(f);
	f->hostile = true;
	f->vm[0].adopt = f->vm[1].adopt = true;
	while (in.left) {
		op = fuzz_u8(&in);
		if (op & 0x80)
			attack(f, e, &in, op);
		else
			use(f, e, &in, op);
	}
	for (i = 0; i < ENDS; i++)
		if (e[i])
			fend_free(e[i]);
	for (i = 0; i < 2; i++) {
		fuzz_check(fix_pair(f, i, !i)->conns == 0);
		fuzz_check(f->vm[i].node.heap.used <= f->lay.chunks);
	}
	fix_free(f);
	return 0;
}
