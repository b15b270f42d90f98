// SPDX-License-Identifier: GPL-2.0-only
/*
 * inject.c - held bytes become the front of TCP's receive queue (M2, M16)
 *
 * For a socket that is to be TCP's alone: kTLS, repair, module unload. n held bytes come at
 * sequence number X in the stream. They get the numbers [X - n, X); unread bytes before X move
 * down by n, and with them copied_seq and what else TCP remembers of the past. Nothing at or after
 * X changes, so the peer sees nothing of it.
 */
#include "module.h"

#define VMCOMM_SKB_MAX 15000

/* The bytes are there already: charge them to the receive buffer whatever its limit. */
static void vmcomm_inject_charge(struct sock *sk, struct sk_buff *skb)
{
	if (!sk_rmem_schedule(sk, skb, skb->truesize))
		pr_warn_once("vmcomm: receive buffer memory exceeded\n");
	skb_set_owner_r(skb, sk);
}

static struct sk_buff *vmcomm_inject_skb(const u8 *from, u32 len, u32 seq, gfp_t gfp)
{
	struct sk_buff *skb = alloc_skb(len, gfp);

	if (!skb)
		return NULL;
	skb_put_data(skb, from, len);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	memset(TCP_SKB_CB(skb), 0, sizeof(*TCP_SKB_CB(skb)));
	TCP_SKB_CB(skb)->seq = seq;
	TCP_SKB_CB(skb)->end_seq = seq + len;
	TCP_SKB_CB(skb)->tcp_flags = TCPHDR_ACK;
	return skb;
}

/* Move the unread bytes before @x down. Return: the last of them; *fin: one ended in a FIN. */
static struct sk_buff *vmcomm_inject_shift(struct sock *sk, u32 x, u32 n, bool *fin)
{
	struct sk_buff *skb, *at = NULL;

	skb_queue_walk(&sk->sk_receive_queue, skb) {
		struct tcp_skb_cb *cb = TCP_SKB_CB(skb);
		u32 end = cb->end_seq - !!(cb->tcp_flags & TCPHDR_FIN);

		if (after(end, x) || cb->seq == x)
			break;
		if (cb->tcp_flags & TCPHDR_FIN) {
			*fin = true;
			cb->tcp_flags &= ~TCPHDR_FIN;
			cb->end_seq--;
		}
		cb->seq -= n;
		cb->end_seq -= n;
		at = skb;
	}
	return at;
}

/* A segment that has bytes on both sides of @x would have to be cut; the sender never makes one:
 * it enters a ring at its write_seq. Coalescing in the receive queue does, though.
 */
static int vmcomm_inject_split(struct sock *sk, u32 x, gfp_t gfp)
{
	struct sk_buff *skb, *tail;
	u32 head;

	skb_queue_walk(&sk->sk_receive_queue, skb) {
		struct tcp_skb_cb *cb = TCP_SKB_CB(skb);
		u32 end = cb->end_seq - !!(cb->tcp_flags & TCPHDR_FIN);

		if (!before(cb->seq, x) || !after(end, x))
			continue;
		head = x - cb->seq;
		tail = alloc_skb(end - x, gfp);
		if (!tail)
			return -ENOMEM;
		if (skb_copy_bits(skb, head, skb_put(tail, end - x), end - x)) {
			kfree_skb(tail);
			return -EFAULT;
		}
		if (pskb_trim(skb, head)) {
			kfree_skb(tail);
			return -ENOMEM;
		}
		tail->ip_summed = CHECKSUM_UNNECESSARY;
		memcpy(TCP_SKB_CB(tail), cb, sizeof(*cb));
		TCP_SKB_CB(tail)->seq = x;
		cb->end_seq = x;
		cb->tcp_flags &= ~(TCPHDR_FIN | TCPHDR_PSH);
		vmcomm_inject_charge(sk, tail);
		__skb_queue_after(&sk->sk_receive_queue, skb, tail);
		return 0;
	}
	return 0;
}

/*
 * Socket lock held; may sleep unless conn.atomic. Return: 0; -EAGAIN: bytes that come before the held ones are still
 * on their way; -ENOMEM: nothing changed.
 */
int vmcomm_inject(struct vmcomm_sock *vs)
{
	gfp_t gfp = (vs->conn.atomic ? GFP_ATOMIC : GFP_KERNEL) | __GFP_NOWARN;
	struct vmcomm_rx *rx = &vs->conn.rx;
	struct sock *sk = vs->sk;
	struct tcp_sock *tp = tcp_sk(sk);
	u32 n = rx->held_len - rx->held_off, x = rx->held_at, pos = 0, len;
	struct sk_buff_head list;
	struct sk_buff *skb, *at;
	bool fin = false;
	int err;

	if (!rx->held_len)
		return 0;
	if (before(tp->rcv_nxt, x)) {
		if (sk->sk_state == TCP_CLOSE)
			return 0; /* with a hole before them nobody reads them */
		return -EAGAIN;
	}
	__skb_queue_head_init(&list);
	while (pos < n) {
		len = min_t(u32, n - pos, VMCOMM_SKB_MAX);
		skb = vmcomm_inject_skb(rx->held + rx->held_off + pos, len, x - n + pos,
					gfp);
		if (!skb) {
			err = -ENOMEM;
			goto err_list;
		}
		__skb_queue_tail(&list, skb);
		pos += len;
	}
	err = vmcomm_inject_split(sk, x, gfp);
	if (err)
		goto err_list;

	at = vmcomm_inject_shift(sk, x, n, &fin);
	/* It may have been taken already, with the last bytes before x: put it back. */
	fin |= vmcomm_copied_seq(sk) != tp->copied_seq;
	if (fin) {
		skb = skb_peek_tail(&list);
		TCP_SKB_CB(skb)->tcp_flags |= TCPHDR_FIN;
		TCP_SKB_CB(skb)->end_seq++;
	}
	if (tp->urg_data && before(tp->urg_seq, x))
		tp->urg_seq -= n;
	WRITE_ONCE(tp->copied_seq, vmcomm_copied_seq(sk) - n);
	tp->rcvq_space.seq -= n;
	while ((skb = __skb_dequeue(&list))) {
		vmcomm_inject_charge(sk, skb);
		if (at)
			__skb_queue_after(&sk->sk_receive_queue, at, skb);
		else
			__skb_queue_head(&sk->sk_receive_queue, skb);
		at = skb;
	}
	vmcomm_rx_consume(&vs->conn, n);
	return 0;

err_list:
	__skb_queue_purge(&list);
	return err;
}
