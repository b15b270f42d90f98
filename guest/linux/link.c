// SPDX-License-Identifier: GPL-2.0-only
/* link.c - what drives one node: doorbells, the second's tick, news from peers */
#include <linux/utsname.h>

#include "module.h"

LIST_HEAD(vmcomm_links);
DEFINE_MUTEX(vmcomm_links_lock);

/* The host wants the VM to leave before it takes the device away, or has thought better of it. */
static void vmcomm_link_own_row(struct vmcomm_link *link)
{
	struct vmcomm_node *node = &link->node;
	struct vmcomm_location loc;

	if (node->backend->location(node, node->slot, &loc))
		return;
	if (loc.state == VMCOMM_SLOT_LEAVING && !READ_ONCE(link->left))
		queue_work(vmcomm_wq, &link->leave_work);
	else if (loc.state == VMCOMM_SLOT_LIVE && READ_ONCE(link->left) && link->rejoin)
		link->rejoin(link);
}

/* Has the host written the own row since we looked? One load. */
static bool vmcomm_link_row_moved(struct vmcomm_link *link)
{
	struct vmcomm_abi_location *row = container_of(link->node.location_word,
						       struct vmcomm_abi_location, location);
	u32 seq = vmcomm_load32(&row->seq);

	if (seq == READ_ONCE(link->row_seq) || seq & 1)
		return false;
	WRITE_ONCE(link->row_seq, seq);
	return true;
}

static void vmcomm_link_tasklet(struct tasklet_struct *t)
{
	struct vmcomm_link *link = from_tasklet(link, t, tasklet);

	vmcomm_pace_begin(link);
	if (!READ_ONCE(link->up))
		return;
	if (vmcomm_pace_end(link, vmcomm_node_event(&link->node)))
		tasklet_schedule(&link->tasklet);
	if (vmcomm_link_row_moved(link))
		vmcomm_link_own_row(link);
}

void vmcomm_link_doorbell(struct vmcomm_link *link)
{
	if (vmcomm_pace_doorbell(link))
		tasklet_schedule(&link->tasklet);
}

/* A peer came up: connections that are wrapped already may move into shared memory (M17). */
static void vmcomm_link_peer_up(struct vmcomm_link *link, u32 slot)
{
	struct vmcomm_sock **v;
	u32 n, i;

	/* All of the link: after a migration the same VM may be in another slot. */
	vmcomm_adopt_scan(link, slot);
	v = vmcomm_sock_collect(&n, link, -1);
	for (i = 0; i < n; i++) {
		struct sock *sk = v[i]->sk;

		lock_sock(sk);
		if (!vmcomm_conn_attached(&v[i]->conn) && v[i]->conn.client &&
		    link->find(link, sk, v[i]->names.raddr, true) == (int)slot) {
			WRITE_ONCE(v[i]->slot, slot);
		} else {
			release_sock(sk);
			continue;
		}
		if (v[i]->conn.client && (v[i]->conn.seq_local || v[i]->conn.seq_remote) &&
		    1 << sk->sk_state & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT | TCPF_FIN_WAIT1 |
					 TCPF_FIN_WAIT2) &&
		    !sock_flag(sk, SOCK_DEAD)) {
			vmcomm_try_offer(v[i], true);
			vmcomm_sock_hurry(sk);
		}
		release_sock(sk);
	}
	vmcomm_sock_release(v, n);
}

/* Return: it was taken. */
static bool vmcomm_link_offered(struct vmcomm_link *link, u32 slot, u32 idx)
{
	u32 seq_local, seq_remote;
	struct vmcomm_sock *vs;
	bool taken = false;

	if (vmcomm_offer_read(&link->node, slot, idx, &seq_local, &seq_remote))
		return false;
	vs = vmcomm_adopt_by_key(seq_local, seq_remote);
	if (!vs)
		return false;
	lock_sock(vs->sk);
	if (vs->link == link && !vs->unsafe && !vs->no_ring && !vs->gone &&
	    !vs->conn.client && !vmcomm_conn_attached(&vs->conn) && vmcomm_is_enabled() &&
	    !sock_flag(vs->sk, SOCK_DEAD)) {
		if (vs->ops_done)
			vs->conn.rx_want = true;
		WRITE_ONCE(vs->slot, slot);
		if (vs->key_unsure)
			vmcomm_sock_set_key(vs, seq_local, seq_remote);
		vmcomm_conn_had(&vs->conn, READ_ONCE(tcp_sk(vs->sk)->rcv_nxt));
		taken = !vmcomm_conn_accept(&link->node, slot, &vs->conn, &vs->names);
		/* Writers at both ends may wait for TCP, and do not look. */
		if (taken) {
			vmcomm_conn_tell(&vs->conn);
			vmcomm_sock_enters(vs);
			vmcomm_sock_hurry(vs->sk);
		}
		if (taken && vs->conn.broken)
			vmcomm_sock_evict_later(vs, VMCOMM_REASON_REVERTED);
	}
	release_sock(vs->sk);
	sock_put(vs->sk);
	vmcomm_sock_put(vs);
	return taken;
}

/* Offers that could not be taken, or not noted, when they were announced. */
static void vmcomm_link_look_offers(struct vmcomm_link *link)
{
	u64 slots;
	u32 slot;

	spin_lock_bh(&link->news_lock);
	slots = link->news_offers;
	link->news_offers = 0;
	spin_unlock_bh(&link->news_lock);
	for (slot = 0; slot < VMCOMM_SLOTS_MAX; slot++)
		if (slots & BIT_ULL(slot))
			vmcomm_node_offers(&link->node, slot);
}

static void vmcomm_link_news(struct work_struct *work)
{
	struct vmcomm_link *link = container_of(work, struct vmcomm_link, news_work);
	u64 up, left, gone;
	u32 offer = 0, slot, taken = 0;
	bool have;

	spin_lock_bh(&link->news_lock);
	up = link->news_up;
	left = link->news_left;
	gone = link->news_gone;
	link->news_up = 0;
	link->news_left = 0;
	link->news_gone = 0;
	spin_unlock_bh(&link->news_lock);
	if (!READ_ONCE(link->up) || READ_ONCE(link->closing))
		return;
	for (slot = 0; slot < VMCOMM_SLOTS_MAX; slot++) {
		if (gone & BIT_ULL(slot))
			vmcomm_evict_pair(link, slot, true);
		else if (left & BIT_ULL(slot))
			vmcomm_evict_pair(link, slot, false);
		if (up & BIT_ULL(slot))
			vmcomm_link_peer_up(link, slot);
	}
	for (;;) {
		spin_lock_bh(&link->news_lock);
		have = link->offers_tail != link->offers_head;
		if (have)
			offer = link->offers[link->offers_tail++ % ARRAY_SIZE(link->offers)];
		spin_unlock_bh(&link->news_lock);
		if (!have)
			break;
		taken += vmcomm_link_offered(link, offer >> 24, offer & 0xffffff);
	}
	/* There was no room for some. Those that nobody can take are left to the tick. */
	if (taken)
		vmcomm_link_look_offers(link);
}

static void vmcomm_link_leave_work(struct work_struct *work)
{
	struct vmcomm_link *link = container_of(work, struct vmcomm_link, leave_work);

	mutex_lock(&link->lock);
	if (link->up && !READ_ONCE(link->closing) && !link->left) {
		vmcomm_link_leave(link, READ_ONCE(vmcomm_leave_ms));
		WRITE_ONCE(link->left, true);
		vmcomm_store_release32(&link->node.page->state, VMCOMM_VM_LEFT);
	}
	mutex_unlock(&link->lock);
}

/* A socket that is locked for long has its turn in a second; the heartbeat does not wait for it. */
static bool vmcomm_link_lock(struct sock *sk)
{
	u32 tries;

	for (tries = 0; tries < 5; tries++) {
		if (vmcomm_lock_sock_try(sk))
			return true;
		usleep_range(200, 1000);
	}
	return false;
}

/*
 * Once a second, with the sockets at hand: rings that nobody uses go back, offers that nobody took
 * are repeated, connections on plain TCP are listed for the operator.
 */
static void vmcomm_link_sockets(struct vmcomm_link *link)
{
	struct vmcomm_abi_plain *row = link->plain ?: vmcomm_layout_plain(&link->region.lay,
									  link->region.base,
									  link->node.slot);
	u32 n, i, plain = 0, k;
	struct vmcomm_sock **v;

	v = vmcomm_sock_collect(&n, link, -1);
	for (i = 0; i < n; i++) {
		struct vmcomm_sock *vs = v[i];

		if (!vmcomm_link_lock(vs->sk))
			goto list;
		if (vmcomm_conn_attached(&vs->conn)) {
			if (vs->conn.tx.ring && time_after(jiffies, vs->active + 5 * HZ))
				vmcomm_tx_idle(&vs->conn);
			vmcomm_conn_poll(&vs->conn);
			if (vmcomm_tx_moved(&vs->conn, tcp_sk(vs->sk)->snd_una))
				vmcomm_sock_enters(vs);
			vmcomm_watch(vs);
		} else if (vs->conn.client && vmcomm_node_pair_up(&link->node, vs->slot) &&
			   vs->conn.seq_local && vmcomm_is_enabled() && !sock_flag(vs->sk, SOCK_DEAD) &&
			   1 << vs->sk->sk_state & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) {
			vmcomm_try_offer(vs, true);
		}
		if (vs->conn.tx.pend_len)
			vmcomm_pend_flush(vs, true);
		release_sock(vs->sk);
list:
		if (vmcomm_conn_attached(&vs->conn) || plain >= VMCOMM_PLAIN_MAX ||
		    !vs->conn.seq_local)
			continue;
		vmcomm_store32(&row->seq, vmcomm_load32(&row->seq) | 1);
		vmcomm_wmb();
		vmcomm_store16(&row->reason, vs->conn.reason ?: VMCOMM_REASON_NEW);
		vmcomm_store8(&row->peer, vs->slot);
		for (k = 0; k < 16; k++) {
			vmcomm_store8(&row->laddr[k], vs->names.laddr[k]);
			vmcomm_store8(&row->raddr[k], vs->names.raddr[k]);
		}
		vmcomm_store16(&row->lport, vs->names.lport);
		vmcomm_store16(&row->rport, vs->names.rport);
		vmcomm_store_release32(&row->seq, (vmcomm_load32(&row->seq) | 1) + 1);
		row++;
		plain++;
	}
	vmcomm_sock_release(v, n);
	for (i = plain; i < VMCOMM_PLAIN_MAX && vmcomm_load16(&row->reason); i++, row++)
		vmcomm_store16(&row->reason, 0);
	vmcomm_store32(&link->node.page->plain_count, plain);
}

static void vmcomm_link_tick(struct work_struct *work)
{
	struct vmcomm_link *link = container_of(to_delayed_work(work), struct vmcomm_link, tick);

	if (READ_ONCE(link->up) && !READ_ONCE(link->closing)) {
		WRITE_ONCE(link->node.enabled, vmcomm_is_enabled());
		vmcomm_node_tick(&link->node);
		vmcomm_link_sockets(link);
		vmcomm_link_look_offers(link);
		vmcomm_link_own_row(link);
	}
	if (!READ_ONCE(link->closing))
		queue_delayed_work(vmcomm_wq, &link->tick, HZ);
}

/* The parameter changed: from their next call on all senders go by it. */
void vmcomm_links_enable(void)
{
	struct vmcomm_link *link;

	mutex_lock(&vmcomm_links_lock);
	list_for_each_entry(link, &vmcomm_links, list)
		WRITE_ONCE(link->node.enabled, vmcomm_is_enabled());
	mutex_unlock(&vmcomm_links_lock);
}

int vmcomm_link_init(struct vmcomm_link *link, const char *name)
{
	link->name = name;
	spin_lock_init(&link->news_lock);
	mutex_init(&link->lock);
	tasklet_setup(&link->tasklet, vmcomm_link_tasklet);
	vmcomm_pace_init(link);
	INIT_DELAYED_WORK(&link->tick, vmcomm_link_tick);
	INIT_WORK(&link->news_work, vmcomm_link_news);
	INIT_WORK(&link->leave_work, vmcomm_link_leave_work);
	INIT_DELAYED_WORK(&link->adopt, vmcomm_adopt_work);
	return 0;
}

/* Take part. Return: 0; -EAGAIN: not yet, try again; another error. May sleep. */
int vmcomm_link_up(struct vmcomm_link *link, const struct vmcomm_node_config *config)
{
	struct vmcomm_node_config c = *config;
	int err;

	c.conn_ops = &vmcomm_sock_conn_ops;
	c.has_tcp = true;
	c.system = utsname()->release;
	c.version = VMCOMM_VERSION;
	mutex_lock(&link->lock);
	/* What was heard in another slot is about other pairs; that slot may be a peer's by now. */
	spin_lock_bh(&link->news_lock);
	link->news_up = 0;
	link->news_left = 0;
	link->news_gone = 0;
	link->news_offers = 0;
	link->offers_tail = link->offers_head;
	spin_unlock_bh(&link->news_lock);
	memset(&link->node, 0, sizeof(link->node));
	vmcomm_access_forget(link);
	err = vmcomm_node_init(&link->node, &c);
	if (err)
		goto out;
	link->node.enabled = vmcomm_is_enabled();
	link->node.ring_shift_first = clamp(vmcomm_ring_first, (u32)VMCOMM_RING_SHIFT_MIN,
					    (u32)VMCOMM_RING_SHIFT_MAX);
	link->node.ring_shift_max = clamp(vmcomm_ring_max, link->node.ring_shift_first,
					  (u32)VMCOMM_RING_SHIFT_MAX);
	if (link->ring_max) {
		link->node.ring_shift_max = min(link->node.ring_shift_max, link->ring_max);
		link->node.ring_shift_first = min(link->node.ring_shift_first, link->ring_max);
	}
	WRITE_ONCE(link->closing, false);
	WRITE_ONCE(link->left, false);
	WRITE_ONCE(link->up, true);
	mutex_lock(&vmcomm_links_lock);
	list_add_tail_rcu(&link->list, &vmcomm_links);
	mutex_unlock(&vmcomm_links_lock);
	/* Scan once: a doorbell from before we could hear it is lost. */
	vmcomm_link_doorbell(link);
	queue_delayed_work(vmcomm_wq, &link->tick, HZ / 10);
out:
	mutex_unlock(&link->lock);
	return err;
}

/* Leave and touch no shared memory afterwards. May sleep. */
void vmcomm_link_down(struct vmcomm_link *link)
{
	mutex_lock(&link->lock);
	if (link->up) {
		if (!link->left)
			vmcomm_link_leave(link, READ_ONCE(vmcomm_leave_ms));
		WRITE_ONCE(link->closing, true);
		cancel_delayed_work_sync(&link->tick);
		cancel_work_sync(&link->news_work);
		cancel_delayed_work_sync(&link->adopt);
		mutex_lock(&vmcomm_links_lock);
		list_del_rcu(&link->list);
		mutex_unlock(&vmcomm_links_lock);
		WRITE_ONCE(link->up, false);
		synchronize_rcu();
		vmcomm_pace_stop(link);
		vmcomm_node_deinit(&link->node);
	}
	mutex_unlock(&link->lock);
}

/* The link's memory goes: no context may point to it. */
void vmcomm_link_deinit(struct vmcomm_link *link)
{
	vmcomm_pace_stop(link);
}

/* What the VM in @slot tells the host; NULL: not to be seen now. Valid until the pair is released. */
const struct vmcomm_abi_slot *vmcomm_link_slot_page(struct vmcomm_link *link, u32 slot)
{
	if (link->slot_page)
		return link->slot_page(link, slot);
	return vmcomm_layout_slot(&link->region.lay, link->region.base, slot);
}

/* RCU read lock held. */
struct vmcomm_link *vmcomm_link_find(const struct sock *sk, const u8 raddr[16], bool client,
				     u32 *slot)
{
	struct vmcomm_link *link;
	int r;

	list_for_each_entry_rcu(link, &vmcomm_links, list) {
		if (!READ_ONCE(link->up))
			continue;
		r = link->find(link, sk, raddr, client);
		if (r < 0)
			continue;
		*slot = r;
		return link;
	}
	return NULL;
}

static bool vmcomm_policy_addr(const struct vmcomm_abi_policy *p, u8 prefix, const u8 addr[16])
{
	u8 bits;
	u32 i;

	for (i = 0; i < 16 && prefix; i++) {
		bits = prefix >= 8 ? 0xff : (u8)(0xff << (8 - prefix));
		if ((vmcomm_load8(&p->addr[i]) ^ addr[i]) & bits)
			return false;
		prefix -= min_t(u8, prefix, 8);
	}
	return true;
}

/* Does the host keep this connection on TCP? */
bool vmcomm_link_policy(struct vmcomm_link *link, const struct vmcomm_conn_names *names)
{
	const struct vmcomm_abi_header *h = link->region.base;
	u32 i, n = min_t(u32, vmcomm_load32(&h->policy_count), VMCOMM_POLICY_MAX);

	for (i = 0; i < n; i++) {
		const struct vmcomm_abi_policy *p = &h->policy[i];
		u16 lo = vmcomm_load16(&p->port_min), hi = vmcomm_load16(&p->port_max);
		u8 prefix = min_t(u8, vmcomm_load8(&p->prefix), 128);

		if (!((names->lport >= lo && names->lport <= hi) ||
		      (names->rport >= lo && names->rport <= hi)))
			continue;
		if (vmcomm_policy_addr(p, prefix, names->laddr) ||
		    vmcomm_policy_addr(p, prefix, names->raddr))
			return true;
	}
	return false;
}
