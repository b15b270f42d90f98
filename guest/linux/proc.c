// SPDX-License-Identifier: GPL-2.0-only
/*
 * proc.c - what the module does, for humans and scripts
 *
 *   /proc/net/vmcomm         one line for each wrapped connection, as /proc/net/tcp
 *   /proc/net/vmcomm_stat    counters, and a counter for each reason code
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>

#include "module.h"

static const char *vmcomm_proc_path(bool attached, u32 epoch)
{
	return attached && epoch & 1 ? "ring" : "tcp";
}

static int vmcomm_proc_conns(struct seq_file *m, void *v)
{
	struct vmcomm_sock *vs;

	seq_puts(m, "  local                                           remote                                          st link    slot tx   rx   reason           tx_ring rx_ring tx_tcp rx_tcp unsent unread\n");
	spin_lock_bh(&vmcomm_socks_lock);
	list_for_each_entry(vs, &vmcomm_socks, list) {
		const struct vmcomm_conn *c = &vs->conn;
		bool attached = vmcomm_conn_attached(c);

		seq_printf(m, "[%pI6c]:%u [%pI6c]:%u %02X %s %u %s %s %s %llu %llu %llu %llu %u %u\n",
			   vs->names.laddr, vs->names.lport, vs->names.raddr, vs->names.rport,
			   READ_ONCE(vs->sk->sk_state), vs->link->name, READ_ONCE(vs->slot),
			   vmcomm_proc_path(attached, READ_ONCE(c->tx.epoch)),
			   vmcomm_proc_path(attached, READ_ONCE(c->rx.epoch)),
			   vmcomm_reason_name(READ_ONCE(c->reason)), READ_ONCE(c->ring_sent),
			   READ_ONCE(c->ring_received), READ_ONCE(c->tcp_sent),
			   READ_ONCE(c->tcp_received), READ_ONCE(c->tx.pend_len),
			   READ_ONCE(c->rx.held_len));
	}
	spin_unlock_bh(&vmcomm_socks_lock);
	return 0;
}

static int vmcomm_proc_stat(struct seq_file *m, void *v)
{
	struct vmcomm_link *link;
	u64 sum;
	u32 i;

	mutex_lock(&vmcomm_links_lock);
	for (i = 0; i < VMCOMM_STAT_COUNT; i++) {
		sum = READ_ONCE(vmcomm_stats[i]);
		list_for_each_entry(link, &vmcomm_links, list)
			sum += READ_ONCE(link->node.stat[i]);
		seq_printf(m, "%s %llu\n", vmcomm_stat_name(i), sum);
	}
	for (i = 1; i < VMCOMM_REASON_COUNT; i++) {
		sum = READ_ONCE(vmcomm_reasons[i]);
		list_for_each_entry(link, &vmcomm_links, list)
			sum += READ_ONCE(link->node.reason[i]);
		seq_printf(m, "reason:%s %llu\n", vmcomm_reason_name(i), sum);
	}
	list_for_each_entry(link, &vmcomm_links, list) {
		seq_printf(m, "link:%s slot %u of %u", link->name, link->node.slot,
			   link->node.lay.slots);
		for (i = 0; i < link->node.lay.slots; i++)
			if (link->node.pair[i])
				seq_printf(m, " %u:%u", i, link->node.pair[i]->state);
		seq_putc(m, '\n');
	}
	mutex_unlock(&vmcomm_links_lock);
	return 0;
}

int vmcomm_proc_init(void)
{
	struct proc_dir_entry *net = init_net.proc_net;

	if (!proc_create_single("vmcomm", 0444, net, vmcomm_proc_conns))
		return -ENOMEM;
	if (!proc_create_single("vmcomm_stat", 0444, net, vmcomm_proc_stat)) {
		remove_proc_entry("vmcomm", net);
		return -ENOMEM;
	}
	return 0;
}

void vmcomm_proc_deinit(void)
{
	remove_proc_entry("vmcomm_stat", init_net.proc_net);
	remove_proc_entry("vmcomm", init_net.proc_net);
}
