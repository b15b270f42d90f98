// SPDX-License-Identifier: GPL-2.0-only
/*
 * xen.c - transport for Xen: a xenbus frontend, device/vmcomm/0 (M24)
 *
 * dom0 grants the header and the location table. Everything else is the guests' own memory, granted
 * read-only to one peer: a directory, the pair pages, and chunks as they come into use; one event
 * channel for each pair. docs/xen.md has the nodes and the order of things.
 *
 * All that sleeps is done by one work item, which looks at the nodes and does what is missing, so it
 * may be queued by anybody at any time. Locks: xv->lock (bh) is taken inside the node's lock.
 */
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <xen/xen.h>
#include <xen/events.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/interface/event_channel.h>
#include <xen/page.h>
#include <xen/xenbus.h>
#include <asm/xen/hypercall.h>

#include "module.h"
#include "xen.h"

#define VMCOMM_XEN_SPARE    8	 /* mappings kept ready for chunks of peers */
#define VMCOMM_XEN_OWN_SPARE 2	 /* chunks of ours kept ready for when no memory can be had at once */
#define VMCOMM_XEN_MAPS_MAX 1024 /* 64 MiB of chunks of 64 KiB */
#define VMCOMM_XEN_HEAP_MAX (32u << 20)
#define VMCOMM_XEN_TABLE_PAGES_MAX 8
#define VMCOMM_XEN_PLAIN_PAGES (VMCOMM_PLAIN_MAX * sizeof(struct vmcomm_abi_plain) / VMCOMM_PAGE)
#define VMCOMM_XEN_RETRY    (HZ / 10)

/* A chunk of a peer's, or room for one. */
struct vmcomm_xen_chunk {
	struct list_head list; /* spare, or idle */
	struct vmcomm_xmap *map;
	u32 slot;
	u32 nr;
	u32 users;
	unsigned long idle; /* jiffies since when */
};

struct vmcomm_xen_peer {
	/* our side of it: granted to this domain */
	u16 domid; /* 0: nobody */
	bool shared;
	u32 base_ref[4]; /* directory, slot page, pair pages */
	u32 *table_ref;
	struct vmcomm_xen_dir *dir;
	vmcomm_le32 *table;
	/* its side: from its node "domid cookie directory port" */
	u64 cookie; /* 0: not mapped */
	u32 chunk_pages_ok;
	struct vmcomm_xmap *dir_map, *table_map, *page_map;
	struct vmcomm_xen_chunk **chunk; /* by number; xv->lock */
	/* event channel */
	u32 port; /* that we offer: the lower slot does */
	int irq;  /* 0: none */
};

struct vmcomm_xen {
	struct xenbus_device *dev;
	struct platform_device *pm; /* gets freeze, thaw and restore before the bus does */
	struct xenbus_watch watch;
	bool watching;
	struct delayed_work work;
	struct delayed_work sweep;
	struct mutex mutex; /* the work, freeze and remove */
	bool down;	    /* frozen, or going: do nothing */
	bool closed;	    /* dom0 took it away */
	char backend[80];
	u32 backend_pid;
	u32 slot;
	u64 cookie;
	struct vmcomm_xmap *table;
	struct vmcomm_layout lay;
	struct vmcomm_layout own; /* as lay, with as many chunks as we have memory for */
	u32 chunk_pages;
	u32 tables;
	void *mem; /* slot page, plain table, pair pages */
	void **own_mem; /* of each chunk of ours; NULL: not used yet */
	void *own_spare[VMCOMM_XEN_OWN_SPARE];
	u32 own_spares;
	u32 *slot_ref; /* granted to dom0 */
	struct vmcomm_xview view;
	u32 host_port;
	int host_irq;
	bool up;
	spinlock_t lock;
	struct list_head spare, idle;
	u32 spares, maps;
	u32 *ref;	/* of our chunks' pages; 0: none */
	u8 *ref_slot;	/* whom a chunk is granted to; 0xff: nobody */
	u16 *ref_domid;
	u8 *ref_used;	/* shared now, not only granted still */
	struct vmcomm_xen_peer peer[VMCOMM_SLOTS_MAX];
	struct vmcomm_link link;
};

/* One device at a time; the link outlives it, see ivshmem.c. */
static struct vmcomm_xen vmcomm_xv;
static bool vmcomm_xen_registered;

static struct vmcomm_abi_pair *vmcomm_xen_pair_page(struct vmcomm_node *node, u32 owner, u32 peer);

static void vmcomm_xen_kick(struct vmcomm_xen *xv, unsigned long delay)
{
	mod_delayed_work(vmcomm_wq, &xv->work, delay);
}

/* --- granting ------------------------------------------------------------------------------------ */

/* Any context. Return: 0 or -EMFILE. */
int vmcomm_xen_grant(u16 domid, const void *page, u32 *ref)
{
	struct page *p = is_vmalloc_addr(page) ? vmalloc_to_page(page) : virt_to_page(page);
	int r = gnttab_grant_foreign_access(domid, xen_page_to_gfn(p), 1);

	if (r < 0)
		return -EMFILE;
	*ref = r;
	return 0;
}

/* Return: true if the reference is free (now); false: somebody still maps the page. */
bool vmcomm_xen_revoke(u32 *ref)
{
	if (*ref && !gnttab_try_end_foreign_access(*ref))
		return false;
	*ref = 0;
	return true;
}

static vmcomm_le32 *vmcomm_xen_word(struct vmcomm_xen *xv, u32 slot, u32 chunk)
{
	return xv->peer[slot].table + chunk * xv->chunk_pages;
}

/* Take a chunk back from whom it was granted to. xv->lock held. */
static bool vmcomm_xen_revoke_chunk(struct vmcomm_xen *xv, u32 chunk)
{
	u32 slot = xv->ref_slot[chunk], i;
	bool all = true;

	if (slot == 0xff)
		return true;
	for (i = 0; i < xv->chunk_pages; i++) {
		if (xv->peer[slot].table)
			vmcomm_store32(vmcomm_xen_word(xv, slot, chunk) + i, 0);
		all &= vmcomm_xen_revoke(&xv->ref[chunk * xv->chunk_pages + i]);
	}
	if (all)
		xv->ref_slot[chunk] = 0xff;
	return all;
}

/*
 * Grants stay when a ring is given back, because the next ring in the chunk is most often for the
 * same peer; vmcomm_xen_sweep() takes them back after a while.
 */
static int vmcomm_xen_share(struct vmcomm_node *node, u32 slot, u32 chunk, u32 count)
{
	struct vmcomm_xen *xv = &vmcomm_xv;
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	u32 i, *ref = xv->ref + chunk * xv->chunk_pages;
	int err = 0;

	if (count != 1 || !xv->own_mem[chunk])
		return -EINVAL;
	spin_lock_bh(&xv->lock);
	if (!p->shared) {
		err = -EAGAIN;
		goto out;
	}
	if (xv->ref_slot[chunk] != 0xff &&
	    (xv->ref_slot[chunk] != slot || xv->ref_domid[chunk] != p->domid) &&
	    !vmcomm_xen_revoke_chunk(xv, chunk)) {
		err = -EAGAIN;
		goto out;
	}
	xv->ref_slot[chunk] = slot;
	xv->ref_domid[chunk] = p->domid;
	for (i = 0; i < xv->chunk_pages && !err; i++) {
		if (!ref[i])
			err = vmcomm_xen_grant(p->domid, (u8 *)xv->own_mem[chunk] + i * VMCOMM_PAGE,
					       &ref[i]);
		if (!err)
			vmcomm_store32(vmcomm_xen_word(xv, slot, chunk) + i, ref[i]);
	}
	if (err)
		vmcomm_xen_revoke_chunk(xv, chunk);
	else
		xv->ref_used[chunk] = 2;
	/* Before the number of the chunk is. */
	vmcomm_wmb();
out:
	spin_unlock_bh(&xv->lock);
	return err;
}

static void vmcomm_xen_unshare(struct vmcomm_node *node, u32 slot, u32 chunk, u32 count)
{
	struct vmcomm_xen *xv = &vmcomm_xv;

	spin_lock_bh(&xv->lock);
	if (count == 1 && xv->ref_used[chunk])
		xv->ref_used[chunk] = 1;
	spin_unlock_bh(&xv->lock);
}

/* --- memory of our own chunks -------------------------------------------------------------------- */

/*
 * A chunk gets its memory when it is used for the first time, and keeps it until we leave: zeroed, as
 * whole pages go to peers. xv->lock held. NULL: none now, some will be made ready.
 */
static void *vmcomm_xen_own(struct vmcomm_xen *xv, u32 chunk)
{
	void **mem = &xv->own_mem[chunk];

	if (*mem)
		return *mem;
	*mem = alloc_pages_exact(1u << xv->lay.chunk_shift, GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO);
	if (*mem)
		return *mem;
	if (xv->own_spares)
		*mem = xv->own_spare[--xv->own_spares];
	vmcomm_xen_kick(xv, 0);
	return *mem;
}

static void vmcomm_xen_own_free(struct vmcomm_xen *xv, void *mem)
{
	if (is_vmalloc_addr(mem))
		vfree(mem);
	else if (mem)
		free_pages_exact(mem, 1u << xv->lay.chunk_shift);
}

/* May sleep. */
static void vmcomm_xen_own_room(struct vmcomm_xen *xv)
{
	void *mem;

	while (READ_ONCE(xv->own_spares) < VMCOMM_XEN_OWN_SPARE) {
		mem = vzalloc(1u << xv->lay.chunk_shift);
		if (!mem)
			return;
		spin_lock_bh(&xv->lock);
		if (xv->own_spares < VMCOMM_XEN_OWN_SPARE) {
			xv->own_spare[xv->own_spares++] = mem;
			mem = NULL;
		}
		spin_unlock_bh(&xv->lock);
		vfree(mem);
	}
}

/* Nobody uses it any more, and nothing of it is granted. May sleep. */
static void vmcomm_xen_own_deinit(struct vmcomm_xen *xv)
{
	u32 i;

	for (i = 0; xv->own_mem && i < xv->own.chunks; i++)
		vmcomm_xen_own_free(xv, xv->own_mem[i]);
	kvfree(xv->own_mem);
	xv->own_mem = NULL;
	while (xv->own_spares)
		vfree(xv->own_spare[--xv->own_spares]);
}

/* --- mapping ------------------------------------------------------------------------------------- */

static struct vmcomm_xen_chunk *vmcomm_xen_chunk_new(struct vmcomm_xen *xv)
{
	struct vmcomm_xen_chunk *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return NULL;
	c->map = vmcomm_xmap_new(xv->chunk_pages);
	if (!c->map) {
		kfree(c);
		return NULL;
	}
	return c;
}

static void vmcomm_xen_chunk_free(struct vmcomm_xen_chunk *c)
{
	vmcomm_xmap_free(c->map);
	kfree(c);
}

/* Have some mappings ready. May sleep. Return: 0, -ENOMEM or -ENOSPC. */
static int vmcomm_xen_room(struct vmcomm_xen *xv)
{
	struct vmcomm_xen_chunk *c;
	bool enough;

	vmcomm_xen_own_room(xv);
	for (;;) {
		spin_lock_bh(&xv->lock);
		enough = xv->spares >= VMCOMM_XEN_SPARE;
		spin_unlock_bh(&xv->lock);
		if (enough)
			return 0;
		if (xv->maps >= VMCOMM_XEN_MAPS_MAX)
			return xv->spares ? 0 : -ENOSPC;
		c = vmcomm_xen_chunk_new(xv);
		if (!c)
			return xv->spares ? 0 : -ENOMEM;
		spin_lock_bh(&xv->lock);
		list_add(&c->list, &xv->spare);
		xv->spares++;
		xv->maps++;
		spin_unlock_bh(&xv->lock);
	}
}

static int vmcomm_xen_prepare(struct vmcomm_node *node)
{
	return vmcomm_xen_room(&vmcomm_xv);
}

static int vmcomm_xen_map_peer(struct vmcomm_xen *xv, u32 slot, u32 nr, void **mem)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	u32 ref[1u << (VMCOMM_CHUNK_SHIFT_MAX - 12)], i;
	struct vmcomm_xen_chunk *c;
	const vmcomm_le32 *word;
	int err;

	c = p->chunk[nr];
	if (c) {
		if (!c->users++)
			list_del_init(&c->list);
		*mem = c->map->va;
		return 0;
	}
	if ((nr + 1) * xv->chunk_pages > p->table_map->count * VMCOMM_XEN_PER_TABLE)
		return -EPROTO;
	word = (const vmcomm_le32 *)p->table_map->va + nr * xv->chunk_pages;
	for (i = 0; i < xv->chunk_pages; i++) {
		ref[i] = vmcomm_load32(&word[i]);
		if (!ref[i])
			return -EPROTO;
	}
	c = list_first_entry_or_null(&xv->spare, struct vmcomm_xen_chunk, list);
	if (!c) {
		vmcomm_xen_kick(xv, 0);
		return -EAGAIN;
	}
	err = vmcomm_xmap_map(c->map, p->domid, ref);
	if (err)
		return err;
	list_del_init(&c->list);
	if (--xv->spares < VMCOMM_XEN_SPARE / 2)
		vmcomm_xen_kick(xv, 0);
	c->slot = slot;
	c->nr = nr;
	c->users = 1;
	p->chunk[nr] = c;
	*mem = c->map->va;
	return 0;
}

static int vmcomm_xen_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
			  void **mem)
{
	struct vmcomm_xen *xv = &vmcomm_xv;
	int err = -EPROTO;

	if (count != 1 || owner >= xv->lay.slots)
		return -EPROTO;
	if (owner == xv->slot) {
		if (chunk >= xv->own.chunks)
			return -EPROTO;
		spin_lock_bh(&xv->lock);
		*mem = vmcomm_xen_own(xv, chunk);
		spin_unlock_bh(&xv->lock);
		return *mem ? 0 : -EAGAIN;
	}
	spin_lock_bh(&xv->lock);
	if (xv->peer[owner].cookie && chunk < xv->lay.chunks)
		err = vmcomm_xen_map_peer(xv, owner, chunk, mem);
	spin_unlock_bh(&xv->lock);
	return err;
}

static void vmcomm_xen_unmap(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count)
{
	struct vmcomm_xen *xv = &vmcomm_xv;
	struct vmcomm_xen_chunk *c;

	spin_lock_bh(&xv->lock);
	c = xv->peer[owner].chunk ? xv->peer[owner].chunk[chunk] : NULL;
	if (c && c->users && !--c->users) {
		c->idle = jiffies;
		list_add_tail(&c->list, &xv->idle);
	}
	spin_unlock_bh(&xv->lock);
}

/*
 * Unmap chunks of peers that nobody has used for a while (@slot: all that are idle, of this peer), and
 * take back grants of ours. May sleep.
 */
static void vmcomm_xen_tidy(struct vmcomm_xen *xv, int slot)
{
	struct vmcomm_xen_chunk *c, *next;
	LIST_HEAD(list);
	u32 i;

	spin_lock_bh(&xv->lock);
	list_for_each_entry_safe(c, next, &xv->idle, list) {
		if (slot >= 0 ? c->slot != slot : time_before(jiffies, c->idle + HZ))
			continue;
		xv->peer[c->slot].chunk[c->nr] = NULL;
		list_move(&c->list, &list);
	}
	spin_unlock_bh(&xv->lock);
	if (!list_empty(&list)) {
		/* Lockless readers. */
		synchronize_rcu();
		list_for_each_entry_safe(c, next, &list, list) {
			vmcomm_xmap_unmap(c->map);
			spin_lock_bh(&xv->lock);
			list_move(&c->list, &xv->spare);
			xv->spares++;
			spin_unlock_bh(&xv->lock);
		}
	}
	for (;;) {
		c = NULL;
		spin_lock_bh(&xv->lock);
		if (xv->spares > 4 * VMCOMM_XEN_SPARE) {
			c = list_first_entry(&xv->spare, struct vmcomm_xen_chunk, list);
			list_del(&c->list);
			xv->spares--;
			xv->maps--;
		}
		spin_unlock_bh(&xv->lock);
		if (!c)
			break;
		vmcomm_xen_chunk_free(c);
	}
	for (i = 0; xv->ref_used && i < xv->own.chunks; i++) {
		spin_lock_bh(&xv->lock);
		/* Given back two sweeps ago. */
		if (xv->ref_used[i] == 1)
			xv->ref_used[i] = 0;
		else if (!xv->ref_used[i])
			vmcomm_xen_revoke_chunk(xv, i);
		spin_unlock_bh(&xv->lock);
	}
}

/* What dom0 lists our connections by. */
static void vmcomm_xen_show(struct vmcomm_xen *xv)
{
	const struct vmcomm_abi_pair *pair;
	u32 slot, i, chunk;

	if (!xv->view.page)
		return;
	for (slot = 0; slot < xv->lay.slots; slot++) {
		pair = xv->peer[slot].cookie ? vmcomm_xen_pair_page(NULL, xv->slot, slot) : NULL;
		vmcomm_xview_pair(&xv->view, slot, pair);
		for (i = 0; pair && i < VMCOMM_CCB_CHUNKS_MAX; i++) {
			chunk = vmcomm_load32(&pair->ccb_chunk[i]);
			if (chunk && chunk <= xv->own.chunks && xv->own_mem[chunk - 1])
				vmcomm_xview_chunk(&xv->view, chunk - 1, xv->own_mem[chunk - 1]);
		}
	}
	vmcomm_xview_round(&xv->view);
}

static void vmcomm_xen_sweep(struct work_struct *work)
{
	struct vmcomm_xen *xv = container_of(to_delayed_work(work), struct vmcomm_xen, sweep);

	mutex_lock(&xv->mutex);
	if (!xv->down && xv->up) {
		vmcomm_xen_tidy(xv, -1);
		vmcomm_xen_show(xv);
		queue_delayed_work(vmcomm_wq, &xv->sweep, HZ);
	}
	mutex_unlock(&xv->mutex);
}

/* --- the other calls of the core ----------------------------------------------------------------- */

static struct vmcomm_abi_pair *vmcomm_xen_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	struct vmcomm_xen *xv = &vmcomm_xv;

	if (owner != xv->slot)
		return NULL; /* vmcomm_node_place() */
	return (struct vmcomm_abi_pair *)((u8 *)xv->mem + (1 + VMCOMM_XEN_PLAIN_PAGES) * VMCOMM_PAGE) +
	       peer;
}

static int vmcomm_xen_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	return vmcomm_region_location(&vmcomm_xv.link.region, slot, loc);
}

static void vmcomm_xen_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	int irq = slot < VMCOMM_SLOTS_MAX ? READ_ONCE(vmcomm_xv.peer[slot].irq) : 0;

	if (irq)
		notify_remote_via_irq(irq);
}

static const struct vmcomm_backend_ops vmcomm_xen_ops = {
	.pair_page = vmcomm_xen_pair_page,
	.map = vmcomm_xen_map,
	.unmap = vmcomm_xen_unmap,
	.prepare = vmcomm_xen_prepare,
	.share = vmcomm_xen_share,
	.unshare = vmcomm_xen_unshare,
	.location = vmcomm_xen_location,
	.doorbell = vmcomm_xen_doorbell,
};

static int vmcomm_xen_find(struct vmcomm_link *link, const struct sock *sk, const u8 raddr[16],
			   bool client)
{
	return vmcomm_node_find(&link->node, raddr);
}

static const struct vmcomm_abi_slot *vmcomm_xen_slot_page(struct vmcomm_link *link, u32 slot)
{
	struct vmcomm_xmap *map = READ_ONCE(vmcomm_xv.peer[slot].page_map);

	return map ? map->va : NULL;
}

static irqreturn_t vmcomm_xen_irq(int irq, void *arg)
{
	struct vmcomm_xen *xv = arg;

	vmcomm_link_doorbell(&xv->link);
	/*
	 * Who goes on ringing while doorbells are shut out gets its channel back later and later, up to
	 * a second; nothing is missed, as the end of the pause looks at everything. One doorbell that is
	 * heard again ends that.
	 */
	xen_irq_lateeoi(irq, READ_ONCE(xv->link.pace.paused) ? XEN_EOI_FLAG_SPURIOUS : 0);
	return IRQ_HANDLED;
}

/* --- peers --------------------------------------------------------------------------------------- */

static void vmcomm_xen_unbind(struct vmcomm_xen *xv, struct vmcomm_xen_peer *p)
{
	int irq = p->irq;

	if (!irq)
		return;
	WRITE_ONCE(p->irq, 0);
	synchronize_rcu();
	/* Doorbells are rung with the node's locks held, not in an RCU section. */
	vmcomm_lock(&xv->link.node.lock);
	vmcomm_unlock(&xv->link.node.lock);
	unbind_from_irqhandler(irq, xv);
	p->port = 0;
}

/* Forget what the peer shared. Return: false: the node still uses it. */
static bool vmcomm_xen_peer_unmap(struct vmcomm_xen *xv, u32 slot)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	struct vmcomm_xmap *page_map = p->page_map;

	if (!p->cookie)
		return true;
	if (xv->up && vmcomm_node_place(&xv->link.node, slot, NULL))
		return false;
	spin_lock_bh(&xv->lock);
	p->cookie = 0;
	spin_unlock_bh(&xv->lock);
	WRITE_ONCE(p->page_map, NULL);
	vmcomm_xen_tidy(xv, slot);
	synchronize_rcu();
	vmcomm_xmap_free(page_map);
	vmcomm_xmap_free(p->table_map);
	vmcomm_xmap_free(p->dir_map);
	p->table_map = NULL;
	p->dir_map = NULL;
	kvfree(p->chunk);
	p->chunk = NULL;
	return true;
}

/* Take back what we shared. Return: false: the peer still maps some of it. */
static bool vmcomm_xen_peer_unshare(struct vmcomm_xen *xv, u32 slot)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	bool all = true;
	u32 i;

	if (!p->dir)
		return true;
	spin_lock_bh(&xv->lock);
	p->shared = false;
	for (i = 0; i < xv->own.chunks; i++)
		if (xv->ref_slot[i] == slot)
			all &= vmcomm_xen_revoke_chunk(xv, i);
	spin_unlock_bh(&xv->lock);
	for (i = 0; i < ARRAY_SIZE(p->base_ref); i++)
		all &= vmcomm_xen_revoke(&p->base_ref[i]);
	for (i = 0; i < xv->tables; i++)
		all &= vmcomm_xen_revoke(&p->table_ref[i]);
	if (!all)
		return false;
	spin_lock_bh(&xv->lock);
	p->table = NULL;
	spin_unlock_bh(&xv->lock);
	vfree(p->dir);
	p->dir = NULL;
	kfree(p->table_ref);
	p->table_ref = NULL;
	p->domid = 0;
	return true;
}

static int vmcomm_xen_peer_publish(struct vmcomm_xen *xv, u32 slot)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	char node[24];

	snprintf(node, sizeof(node), "peer/%u", slot);
	return xenbus_printf(XBT_NIL, xv->dev->nodename, node, "%u %llx %u %u", p->domid, xv->cookie,
			     p->base_ref[0], p->port);
}

static void vmcomm_xen_peer_unpublish(struct vmcomm_xen *xv, u32 slot)
{
	char node[24];

	snprintf(node, sizeof(node), "peer/%u", slot);
	xenbus_rm(XBT_NIL, xv->dev->nodename, node);
}

static int vmcomm_xen_listen(struct vmcomm_xen *xv, struct vmcomm_xen_peer *p)
{
	struct evtchn_alloc_unbound op = {.dom = DOMID_SELF, .remote_dom = p->domid};
	int irq;

	if (HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &op))
		return -ENOSPC;
	irq = bind_evtchn_to_irqhandler_lateeoi(op.port, vmcomm_xen_irq, 0, "vmcomm", xv);
	if (irq < 0) {
		struct evtchn_close shut = {.port = op.port};

		HYPERVISOR_event_channel_op(EVTCHNOP_close, &shut);
		return irq;
	}
	p->port = op.port;
	WRITE_ONCE(p->irq, irq);
	return 0;
}

static int vmcomm_xen_bind(struct vmcomm_xen *xv, struct vmcomm_xen_peer *p, u32 port)
{
	struct evtchn_bind_interdomain op = {.remote_dom = p->domid, .remote_port = port};
	int irq;

	if (HYPERVISOR_event_channel_op(EVTCHNOP_bind_interdomain, &op))
		return -EAGAIN;
	irq = bind_evtchn_to_irqhandler_lateeoi(op.local_port, vmcomm_xen_irq, 0, "vmcomm", xv);
	if (irq < 0) {
		struct evtchn_close shut = {.port = op.local_port};

		HYPERVISOR_event_channel_op(EVTCHNOP_close, &shut);
		return irq;
	}
	WRITE_ONCE(p->irq, irq);
	return 0;
}

/* Let @domid see our directory, slot page and pair pages. */
static int vmcomm_xen_peer_share(struct vmcomm_xen *xv, u32 slot, u16 domid)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	struct vmcomm_abi_pair *pair = vmcomm_xen_pair_page(NULL, xv->slot, slot);
	int err = -ENOMEM;
	u32 i;

	p->table_ref = kcalloc(xv->tables, sizeof(*p->table_ref), GFP_KERNEL);
	p->dir = vzalloc((1 + xv->tables) * VMCOMM_PAGE);
	if (!p->table_ref || !p->dir)
		goto err;
	p->table = (vmcomm_le32 *)((u8 *)p->dir + VMCOMM_PAGE);
	p->domid = domid;
	err = vmcomm_xen_grant(domid, p->dir, &p->base_ref[0]);
	err = err ?: vmcomm_xen_grant(domid, xv->mem, &p->base_ref[1]);
	err = err ?: vmcomm_xen_grant(domid, pair, &p->base_ref[2]);
	err = err ?: vmcomm_xen_grant(domid, (u8 *)pair + VMCOMM_PAGE, &p->base_ref[3]);
	for (i = 0; i < xv->tables && !err; i++) {
		err = vmcomm_xen_grant(domid, (u8 *)p->table + i * VMCOMM_PAGE, &p->table_ref[i]);
		vmcomm_store32(&p->dir->table[i], p->table_ref[i]);
	}
	if (!err && xv->slot < slot)
		err = vmcomm_xen_listen(xv, p);
	if (err)
		goto err;
	vmcomm_store32(&p->dir->version, VMCOMM_XEN_VERSION);
	vmcomm_store32(&p->dir->slot_page, p->base_ref[1]);
	vmcomm_store32(&p->dir->pair[0], p->base_ref[2]);
	vmcomm_store32(&p->dir->pair[1], p->base_ref[3]);
	vmcomm_store32(&p->dir->tables, xv->tables);
	vmcomm_store_release32(&p->dir->magic, VMCOMM_XEN_MAGIC);
	spin_lock_bh(&xv->lock);
	p->shared = true;
	spin_unlock_bh(&xv->lock);
	err = vmcomm_xen_peer_publish(xv, slot);
	if (err)
		goto err;
	return 0;

err:
	vmcomm_xen_unbind(xv, p);
	if (p->dir) {
		vmcomm_xen_peer_unshare(xv, slot);
	} else {
		kfree(p->table_ref);
		p->table_ref = NULL;
	}
	dev_warn_ratelimited(&xv->dev->dev, "cannot share memory with the domain in slot %u: %d%s\n",
			     slot, err, err == -EMFILE ? ": the grant table is full" :
			     err == -ENOSPC ? ": no event channel is left" : "");
	vmcomm_node_reason(&xv->link.node, err == -EMFILE ? VMCOMM_REASON_GRANTS_FULL :
					   err == -ENOSPC ? VMCOMM_REASON_NO_EVTCHN :
							    VMCOMM_REASON_GUEST_MEMORY);
	return err;
}

/* Map what the peer shares with us. All numbers are its own. */
static int vmcomm_xen_peer_map(struct vmcomm_xen *xv, u32 slot, u64 cookie, u32 dir_ref, u32 port)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	struct vmcomm_xmap *dir_map = NULL, *table_map = NULL, *page_map = NULL;
	const struct vmcomm_xen_dir *dir;
	u32 tables, i, *ref = NULL;
	int err = -ENOMEM;

	dir_map = vmcomm_xmap_new(1);
	page_map = vmcomm_xmap_new(3);
	p->chunk = kvcalloc(xv->lay.chunks, sizeof(*p->chunk), GFP_KERNEL);
	ref = kcalloc(VMCOMM_XEN_TABLES_MAX, sizeof(*ref), GFP_KERNEL);
	if (!dir_map || !page_map || !p->chunk || !ref)
		goto err;
	err = vmcomm_xmap_map(dir_map, p->domid, &dir_ref);
	if (err)
		goto err;
	dir = dir_map->va;
	tables = vmcomm_load32(&dir->tables);
	err = -EPROTO;
	if (vmcomm_load_acquire32(&dir->magic) != VMCOMM_XEN_MAGIC ||
	    vmcomm_load32(&dir->version) != VMCOMM_XEN_VERSION || !tables ||
	    tables > VMCOMM_XEN_TABLES_MAX)
		goto err;
	for (i = 0; i < tables; i++)
		ref[i] = vmcomm_load32(&dir->table[i]);
	err = -ENOMEM;
	table_map = vmcomm_xmap_new(tables);
	if (!table_map)
		goto err;
	err = vmcomm_xmap_map(table_map, p->domid, ref);
	if (err)
		goto err;
	ref[0] = vmcomm_load32(&dir->slot_page);
	ref[1] = vmcomm_load32(&dir->pair[0]);
	ref[2] = vmcomm_load32(&dir->pair[1]);
	err = vmcomm_xmap_map(page_map, p->domid, ref);
	if (err)
		goto err;
	if (xv->slot > slot) {
		err = vmcomm_xen_bind(xv, p, port);
		if (err)
			goto err;
	}
	p->dir_map = dir_map;
	p->table_map = table_map;
	WRITE_ONCE(p->page_map, page_map);
	spin_lock_bh(&xv->lock);
	p->cookie = cookie;
	spin_unlock_bh(&xv->lock);
	kfree(ref);
	/* It was down: nothing can be in use. */
	WARN_ON_ONCE(vmcomm_node_place(&xv->link.node, slot,
				       (void *)((u8 *)page_map->va + VMCOMM_PAGE)));
	vmcomm_link_doorbell(&xv->link);
	vmcomm_xen_doorbell(&xv->link.node, slot, VMCOMM_VECTOR_EVENT);
	return 0;

err:
	kfree(ref);
	kvfree(p->chunk);
	p->chunk = NULL;
	vmcomm_xmap_free(table_map);
	vmcomm_xmap_free(page_map);
	vmcomm_xmap_free(dir_map);
	if (err == -EPERM)
		vmcomm_node_reason(&xv->link.node, VMCOMM_REASON_SILO);
	else if (err == -ENOSPC)
		vmcomm_node_reason(&xv->link.node, VMCOMM_REASON_MAPTRACK_FULL);
	dev_warn_ratelimited(&xv->dev->dev, "cannot map memory of the domain in slot %u: %d%s\n",
			     slot, err, err == -EPERM ? ": the hypervisor's policy forbids it" : "");
	return err;
}

/* Return: true if there is nothing to wait for. */
static bool vmcomm_xen_peer_look(struct vmcomm_xen *xv, u32 slot)
{
	struct vmcomm_xen_peer *p = &xv->peer[slot];
	unsigned int domid = 0, from = 0, dir = 0, port = 0;
	unsigned long long cookie = 0;
	char node[24];

	snprintf(node, sizeof(node), "member/%u", slot);
	if (xenbus_scanf(XBT_NIL, xv->backend, node, "%u", &domid) != 1 || domid >= DOMID_FIRST_RESERVED)
		domid = 0;
	snprintf(node, sizeof(node), "peer/%u", slot);
	if (!domid || xenbus_scanf(XBT_NIL, xv->backend, node, "%u %llx %u %u", &from, &cookie, &dir,
				   &port) != 4 || from != domid)
		cookie = 0;
	if (p->cookie && (p->cookie != cookie || p->domid != domid)) {
		if (!vmcomm_xen_peer_unmap(xv, slot))
			return false;
		/* It comes back with a channel of its own, or none. */
		vmcomm_xen_unbind(xv, p);
		vmcomm_xen_peer_unpublish(xv, slot);
		if (!vmcomm_xen_peer_unshare(xv, slot))
			return false;
	}
	if (p->domid && p->domid != domid) {
		vmcomm_xen_unbind(xv, p);
		vmcomm_xen_peer_unpublish(xv, slot);
		if (!vmcomm_xen_peer_unshare(xv, slot))
			return false;
	}
	if (domid && !p->domid && vmcomm_xen_peer_share(xv, slot, domid))
		return false;
	/* The lower slot's channel is in its node; the higher one can bind it only then. */
	if (cookie && !p->cookie && p->shared && (xv->slot < slot || port))
		return !vmcomm_xen_peer_map(xv, slot, cookie, dir, port);
	return true;
}

/* --- the device ---------------------------------------------------------------------------------- */

static void vmcomm_xen_disconnect(struct vmcomm_xen *xv)
{
	u32 i;

	if (xv->up) {
		vmcomm_link_down(&xv->link);
		xv->up = false;
	}
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++) {
		struct vmcomm_xen_peer *p = &xv->peer[i];

		vmcomm_xen_peer_unmap(xv, i);
		vmcomm_xen_unbind(xv, p);
		if (p->domid && xv->dev)
			vmcomm_xen_peer_unpublish(xv, i);
	}
	if (xv->host_irq > 0)
		unbind_from_irqhandler(xv->host_irq, xv);
	xv->host_irq = 0;
	vmcomm_link_deinit(&xv->link);
}

/* References of another domain's grant table. */
static void vmcomm_xen_forget(struct vmcomm_xen *xv)
{
	u32 i, k;

	for (i = 0; xv->slot_ref && i < 1 + VMCOMM_XEN_PLAIN_PAGES; i++)
		if (xv->slot_ref[i])
			gnttab_free_grant_reference(xv->slot_ref[i]);
	for (i = 0; xv->ref && i < xv->own.chunks * xv->chunk_pages; i++)
		if (xv->ref[i])
			gnttab_free_grant_reference(xv->ref[i]);
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++) {
		struct vmcomm_xen_peer *p = &xv->peer[i];

		if (!p->dir)
			continue;
		for (k = 0; k < ARRAY_SIZE(p->base_ref); k++) {
			if (p->base_ref[k])
				gnttab_free_grant_reference(p->base_ref[k]);
			p->base_ref[k] = 0;
		}
		for (k = 0; k < xv->tables; k++)
			if (p->table_ref[k])
				gnttab_free_grant_reference(p->table_ref[k]);
		vfree(p->dir);
		p->dir = NULL;
		p->table = NULL;
		kfree(p->table_ref);
		p->table_ref = NULL;
		p->domid = 0;
	}
}

/*
 * Give our memory back. Return: false: peers, or dom0, still map some of it. @forced: we are in
 * another domain now, in whose grant table nothing is: forget the references.
 */
static bool vmcomm_xen_release(struct vmcomm_xen *xv, bool forced)
{
	struct vmcomm_xen_chunk *c, *next;
	bool all = true;
	u32 i, n;

	n = 1 + VMCOMM_XEN_PLAIN_PAGES;
	for (i = 0; xv->slot_ref && i < n; i++)
		all &= vmcomm_xen_revoke(&xv->slot_ref[i]);
	all &= vmcomm_xview_deinit(&xv->view, forced);
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		all &= vmcomm_xen_peer_unshare(xv, i);
	if (!all && !forced)
		return false;
	if (!all)
		vmcomm_xen_forget(xv);
	list_for_each_entry_safe(c, next, &xv->spare, list) {
		list_del(&c->list);
		vmcomm_xen_chunk_free(c);
	}
	xv->spares = 0;
	xv->maps = 0;
	vmcomm_xmap_free(xv->table);
	xv->table = NULL;
	vmcomm_xen_own_deinit(xv);
	vfree(xv->mem);
	xv->mem = NULL;
	kvfree(xv->ref);
	kvfree(xv->ref_slot);
	kvfree(xv->ref_domid);
	kvfree(xv->ref_used);
	kfree(xv->slot_ref);
	xv->ref = NULL;
	xv->ref_slot = NULL;
	xv->ref_domid = NULL;
	xv->ref_used = NULL;
	xv->slot_ref = NULL;
	return true;
}

static int vmcomm_xen_table(struct vmcomm_xen *xv)
{
	u32 ref[VMCOMM_XEN_TABLE_PAGES_MAX], n = 0;
	char *text, *at, *word;
	int err;

	text = xenbus_read(XBT_NIL, xv->backend, "table-refs", NULL);
	if (IS_ERR(text))
		return -EAGAIN;
	for (at = text; (word = strsep(&at, " ")) && n < ARRAY_SIZE(ref);)
		if (!kstrtou32(word, 10, &ref[n]))
			n++;
	kfree(text);
	if (!n)
		return -EPROTO;
	xv->table = vmcomm_xmap_new(n);
	if (!xv->table)
		return -ENOMEM;
	err = vmcomm_xmap_map(xv->table, xv->dev->otherend_id, ref);
	if (err)
		return err;
	/* Only these pages are there: nothing is one mapping here. */
	err = vmcomm_region_init(&xv->link.region, xv->table->va, VMCOMM_REGION_MAX);
	if (err)
		return err;
	xv->lay = xv->link.region.lay;
	if (xv->lay.table_off + xv->lay.slots * sizeof(struct vmcomm_abi_location) > n * VMCOMM_PAGE ||
	    xv->slot >= xv->lay.slots)
		return -EPROTO;
	return 0;
}

static int vmcomm_xen_memory(struct vmcomm_xen *xv)
{
	u32 fixed = 1 + VMCOMM_XEN_PLAIN_PAGES + 2 * xv->lay.slots, pages;

	xv->own = xv->lay;
	xv->own.chunks = min(xv->lay.chunks, VMCOMM_XEN_HEAP_MAX >> xv->lay.chunk_shift);
	xv->chunk_pages = 1u << (xv->lay.chunk_shift - 12);
	pages = xv->own.chunks * xv->chunk_pages;
	xv->tables = DIV_ROUND_UP(pages, VMCOMM_XEN_PER_TABLE);
	xv->mem = vzalloc(fixed * VMCOMM_PAGE);
	xv->own_mem = kvcalloc(xv->own.chunks, sizeof(*xv->own_mem), GFP_KERNEL);
	xv->ref = kvcalloc(pages, sizeof(*xv->ref), GFP_KERNEL);
	xv->ref_slot = kvmalloc(xv->own.chunks, GFP_KERNEL);
	xv->ref_domid = kvcalloc(xv->own.chunks, sizeof(*xv->ref_domid), GFP_KERNEL);
	xv->ref_used = kvcalloc(xv->own.chunks, 1, GFP_KERNEL);
	xv->slot_ref = kcalloc(1 + VMCOMM_XEN_PLAIN_PAGES, sizeof(*xv->slot_ref), GFP_KERNEL);
	if (!xv->mem || !xv->own_mem || !xv->ref || !xv->ref_slot || !xv->ref_domid ||
	    !xv->ref_used || !xv->slot_ref)
		return -ENOMEM;
	memset(xv->ref_slot, 0xff, xv->own.chunks);
	xv->link.plain = (struct vmcomm_abi_plain *)((u8 *)xv->mem + VMCOMM_PAGE);
	xv->link.ring_max = xv->lay.chunk_shift;
	return vmcomm_xen_room(xv);
}

/* Our slot page and the list of plain connections, for dom0. */
static int vmcomm_xen_for_host(struct vmcomm_xen *xv)
{
	char text[(1 + VMCOMM_XEN_PLAIN_PAGES) * 11 + 1];
	evtchn_port_t port;
	int err = 0, at = 0;
	u32 i;

	for (i = 0; i < 1 + VMCOMM_XEN_PLAIN_PAGES && !err; i++) {
		err = vmcomm_xen_grant(xv->dev->otherend_id, (u8 *)xv->mem + i * VMCOMM_PAGE,
				       &xv->slot_ref[i]);
		at += scnprintf(text + at, sizeof(text) - at, "%s%u", i ? " " : "", xv->slot_ref[i]);
	}
	if (err)
		return err;
	err = xenbus_alloc_evtchn(xv->dev, &port);
	if (err)
		return err;
	xv->host_irq = bind_evtchn_to_irqhandler_lateeoi(port, vmcomm_xen_irq, 0, "vmcomm-host", xv);
	if (xv->host_irq < 0) {
		err = xv->host_irq;
		xenbus_free_evtchn(xv->dev, port);
		return err;
	}
	/* Connections are not listed then. */
	if (vmcomm_xview_init(&xv->view, xv->dev->otherend_id, xv->chunk_pages))
		xenbus_rm(XBT_NIL, xv->dev->nodename, "view-ref");
	else
		xenbus_printf(XBT_NIL, xv->dev->nodename, "view-ref", "%u", xv->view.ref);
	err = xenbus_printf(XBT_NIL, xv->dev->nodename, "event-channel", "%u", port);
	return err ?: xenbus_printf(XBT_NIL, xv->dev->nodename, "slot-refs", "%s", text);
}

static int vmcomm_xen_connect(struct vmcomm_xen *xv)
{
	struct vmcomm_node_config config = {.backend = &vmcomm_xen_ops, .lay = &xv->own};
	int err;

	err = vmcomm_xen_table(xv);
	err = err ?: vmcomm_xen_memory(xv);
	if (err)
		return err;
	config.slot = xv->slot;
	config.location_word =
		&vmcomm_layout_location(&xv->lay, xv->table->va, xv->slot)->location;
	config.page = xv->mem;
	do
		xv->cookie = vmcomm_random64();
	while (!xv->cookie);
	err = vmcomm_link_up(&xv->link, &config);
	if (err)
		return err;
	xv->up = true;
	err = vmcomm_xen_for_host(xv);
	if (err)
		return err;
	/* In another domain the bus remembers what it wrote in the last one. */
	xv->dev->state = XenbusStateInitialising;
	xenbus_switch_state(xv->dev, XenbusStateConnected);
	dev_info(&xv->dev->dev, "joined the group in slot %u of %u\n", xv->slot, xv->lay.slots);
	queue_delayed_work(vmcomm_wq, &xv->sweep, HZ);
	return 0;
}

/*
 * Where dom0's nodes for us are: they are others after a migration, and may be late.
 * Return: 0; -EAGAIN: not there; -ENODEV: dom0 takes the device away; -ESTALE: another process of
 * dom0's than the one that we are connected to.
 */
static int vmcomm_xen_backend(struct vmcomm_xen *xv)
{
	unsigned int state, slot, pid;
	char *path;

	path = xenbus_read(XBT_NIL, xv->dev->nodename, "backend", NULL);
	if (IS_ERR(path))
		return -EAGAIN;
	strscpy(xv->backend, path, sizeof(xv->backend));
	kfree(path);
	if (xenbus_scanf(XBT_NIL, xv->backend, "state", "%u", &state) != 1)
		return -EAGAIN;
	if (state == XenbusStateClosing || state == XenbusStateClosed)
		return -ENODEV;
	if ((state != XenbusStateInitWait && state != XenbusStateConnected) ||
	    xenbus_scanf(XBT_NIL, xv->backend, "pid", "%u", &pid) != 1 ||
	    xenbus_scanf(XBT_NIL, xv->backend, "slot", "%u", &slot) != 1 || slot >= VMCOMM_SLOTS_MAX)
		return -EAGAIN;
	if (xv->up)
		return pid == xv->backend_pid && slot == xv->slot ? 0 : -ESTALE;
	xv->backend_pid = pid;
	xv->slot = slot;
	return 0;
}

static void vmcomm_xen_work(struct work_struct *work)
{
	struct vmcomm_xen *xv = container_of(to_delayed_work(work), struct vmcomm_xen, work);
	bool again = false;
	int err;
	u32 i;

	mutex_lock(&xv->mutex);
	if (xv->down || !xv->dev)
		goto out;
	err = vmcomm_xen_backend(xv);
	if (err == -ENODEV) {
		if (!xv->closed) {
			vmcomm_xen_disconnect(xv);
			vmcomm_xen_release(xv, false);
			xenbus_frontend_closed(xv->dev);
			xv->closed = true;
		}
		goto out;
	}
	if (err == -ESTALE) {
		vmcomm_xen_disconnect(xv);
		err = vmcomm_xen_backend(xv);
	}
	if (!xv->up) {
		again = true;
		/* Memory of an earlier life that somebody still maps. */
		if (!vmcomm_xen_release(xv, false) || err)
			goto out;
		xv->closed = false;
		err = vmcomm_xen_connect(xv);
		if (err) {
			vmcomm_xen_disconnect(xv);
			if (err != -EAGAIN)
				dev_warn_ratelimited(&xv->dev->dev, "cannot join the group yet: %d\n",
						     err);
			goto out;
		}
		again = false;
	}
	vmcomm_xen_room(xv);
	for (i = 0; i < xv->lay.slots; i++)
		if (i != xv->slot)
			again |= !vmcomm_xen_peer_look(xv, i);
	vmcomm_link_doorbell(&xv->link);
out:
	if (again && !xv->down)
		queue_delayed_work(vmcomm_wq, &xv->work, VMCOMM_XEN_RETRY);
	mutex_unlock(&xv->mutex);
}

static void vmcomm_xen_changed(struct xenbus_watch *watch, const char *path, const char *token)
{
	vmcomm_xen_kick(container_of(watch, struct vmcomm_xen, watch), 0);
}

static void vmcomm_xen_watch(struct vmcomm_xen *xv)
{
	if (xv->watching)
		return;
	/* Not the backend's: its name changes when we migrate. vmcomm-xen writes "event" here. */
	xv->watch.node = kstrdup(xv->dev->nodename, GFP_KERNEL);
	xv->watch.callback = vmcomm_xen_changed;
	if (!xv->watch.node || register_xenbus_watch(&xv->watch)) {
		kfree(xv->watch.node);
		return;
	}
	xv->watching = true;
}

static void vmcomm_xen_unwatch(struct vmcomm_xen *xv)
{
	if (!xv->watching)
		return;
	unregister_xenbus_watch(&xv->watch);
	kfree(xv->watch.node);
	xv->watching = false;
}

/* Leave, unmap, unbind. Not called with the mutex. */
static void vmcomm_xen_stop(struct vmcomm_xen *xv)
{
	mutex_lock(&xv->mutex);
	xv->down = true;
	mutex_unlock(&xv->mutex);
	cancel_delayed_work_sync(&xv->work);
	cancel_delayed_work_sync(&xv->sweep);
	mutex_lock(&xv->mutex);
	vmcomm_xen_disconnect(xv);
	mutex_unlock(&xv->mutex);
}

static int vmcomm_xen_probe(struct xenbus_device *dev, const struct xenbus_device_id *id)
{
	struct vmcomm_xen *xv = &vmcomm_xv;

	if (xv->dev) {
		dev_err(&dev->dev, "a VM is in one group only: %s is in use already\n",
			xv->dev->nodename);
		return -EBUSY;
	}
	xv->dev = dev;
	xv->down = false;
	xv->closed = false;
	/* A child: it freezes before the bus's own device and is restored after it. */
	xv->pm = platform_device_register_resndata(&dev->dev, "vmcomm-xen", PLATFORM_DEVID_NONE, NULL,
						   0, NULL, 0);
	if (IS_ERR(xv->pm)) {
		xv->dev = NULL;
		return PTR_ERR(xv->pm);
	}
	dev_set_drvdata(&dev->dev, xv);
	xenbus_switch_state(dev, XenbusStateInitialising);
	vmcomm_xen_watch(xv);
	vmcomm_xen_kick(xv, 0);
	return 0;
}

static void vmcomm_xen_otherend(struct xenbus_device *dev, enum xenbus_state state)
{
	struct vmcomm_xen *xv = dev_get_drvdata(&dev->dev);

	if (xv)
		vmcomm_xen_kick(xv, 0);
}

static void vmcomm_xen_remove(struct xenbus_device *dev)
{
	struct vmcomm_xen *xv = dev_get_drvdata(&dev->dev);
	unsigned long end = jiffies + 5 * HZ;
	bool done;

	vmcomm_xen_unwatch(xv);
	platform_device_unregister(xv->pm);
	vmcomm_xen_stop(xv);
	do {
		mutex_lock(&xv->mutex);
		done = vmcomm_xen_release(xv, false);
		mutex_unlock(&xv->mutex);
		if (!done)
			msleep(20);
	} while (!done && time_before(jiffies, end));
	if (!done)
		dev_warn(&dev->dev, "peers still map our memory: it is given back when they let go\n");
	xv->dev = NULL;
	dev_set_drvdata(&dev->dev, NULL);
}

/* --- suspend: save, migration, checkpoint -------------------------------------------------------- */

/* Still the old domain: peers, xenstore and event channels work. */
static int vmcomm_xen_freeze(struct device *dev)
{
	struct vmcomm_xen *xv = &vmcomm_xv;
	unsigned long end = jiffies + HZ;
	bool done;

	vmcomm_xen_stop(xv);
	/* dom0 lets go of our pages then. */
	if (xv->dev->state == XenbusStateConnected)
		xenbus_switch_state(xv->dev, XenbusStateInitialising);
	do {
		mutex_lock(&xv->mutex);
		done = vmcomm_xen_release(xv, false);
		mutex_unlock(&xv->mutex);
		if (!done)
			msleep(20);
	} while (!done && time_before(jiffies, end));
	return 0;
}

static void vmcomm_xen_begin(void)
{
	mutex_lock(&vmcomm_xv.mutex);
	vmcomm_xv.down = false;
	mutex_unlock(&vmcomm_xv.mutex);
	vmcomm_xen_kick(&vmcomm_xv, 0);
}

/* After a checkpoint: the same domain. */
static int vmcomm_xen_thaw(struct device *dev)
{
	vmcomm_xen_begin();
	return 0;
}

/*
 * Another domain. dom0's nodes for it may come later. What peers of the old one still mapped when we
 * froze they had from the old one: nothing is granted in this one.
 */
static int vmcomm_xen_restore(struct device *dev)
{
	mutex_lock(&vmcomm_xv.mutex);
	vmcomm_xen_release(&vmcomm_xv, true);
	mutex_unlock(&vmcomm_xv.mutex);
	vmcomm_xen_begin();
	return 0;
}

static const struct dev_pm_ops vmcomm_xen_pm_ops = {
	.freeze = vmcomm_xen_freeze,
	.thaw = vmcomm_xen_thaw,
	.restore = vmcomm_xen_restore,
};

static struct platform_driver vmcomm_xen_pm_driver = {
	.driver = {.name = "vmcomm-xen", .pm = &vmcomm_xen_pm_ops},
};

static const struct xenbus_device_id vmcomm_xen_ids[] = {
	{"vmcomm"},
	{""},
};
MODULE_ALIAS("xen:vmcomm");

static struct xenbus_driver vmcomm_xen_driver = {
	.name = "vmcomm",
	.ids = vmcomm_xen_ids,
	.probe = vmcomm_xen_probe,
	.remove = vmcomm_xen_remove,
	.otherend_changed = vmcomm_xen_otherend,
	.not_essential = true,
};

int vmcomm_xen_init(void)
{
	struct vmcomm_xen *xv = &vmcomm_xv;
	int err;

	if (!xen_domain())
		return 0;
	vmcomm_link_init(&xv->link, "xen");
	xv->link.find = vmcomm_xen_find;
	xv->link.slot_page = vmcomm_xen_slot_page;
	mutex_init(&xv->mutex);
	spin_lock_init(&xv->lock);
	INIT_LIST_HEAD(&xv->spare);
	INIT_LIST_HEAD(&xv->idle);
	INIT_DELAYED_WORK(&xv->work, vmcomm_xen_work);
	INIT_DELAYED_WORK(&xv->sweep, vmcomm_xen_sweep);
	err = platform_driver_register(&vmcomm_xen_pm_driver);
	if (err)
		return err;
	/* Without an owner: the bus would hold the module for as long as there is a device. */
	err = __xenbus_register_frontend(&vmcomm_xen_driver, NULL, KBUILD_MODNAME);
	if (err)
		platform_driver_unregister(&vmcomm_xen_pm_driver);
	vmcomm_xen_registered = !err;
	return err;
}

void vmcomm_xen_deinit(void)
{
	if (!vmcomm_xen_registered)
		return;
	xenbus_unregister_driver(&vmcomm_xen_driver);
	platform_driver_unregister(&vmcomm_xen_pm_driver);
}
