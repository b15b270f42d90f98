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
/* What may be kept in front of a receive queue, and how large a receive buffer is made at most. */
#define VMCOMM_FRONT_MAX (64 << 20)

static atomic_long_t vmcomm_front_total;

/* The bytes are there already: charge them to the receive buffer whatever its limit. */
static void vmcomm_inject_charge(struct sock *sk, struct sk_buff *skb)
{
	if (!sk_rmem_schedule(sk, skb, skb->truesize))
		pr_info_once("vmcomm: TCP's memory is used up\n");
	skb_set_owner_r(skb, sk);
}

/*
 * The front: entries taken off the front of the receive queue for a while, so that TCP takes more
 * from the peer although nobody reads. TCP has them as read. Whoever looks at the queue with the
 * socket lock held calls vmcomm_front_put() first; lockless readers add vmcomm_front_bytes().
 */
static void vmcomm_front_take(struct vmcomm_sock *vs, u32 x)
{
	long limit = totalram_pages() << PAGE_SHIFT >> 3;
	struct sock *sk = vs->sk;
	struct tcp_sock *tp = tcp_sk(sk);
	struct sk_buff *skb;

	/* A reader between two locks has been told how many bytes it finds. */
	if (vs->tcp_reading || tp->urg_data)
		return;
	if (skb_queue_empty(&vs->front))
		vs->front_seq = tp->copied_seq;
	while ((skb = skb_peek(&sk->sk_receive_queue)) &&
	       !(TCP_SKB_CB(skb)->tcp_flags & TCPHDR_FIN) && !after(TCP_SKB_CB(skb)->end_seq, x) &&
	       vs->front_size < VMCOMM_FRONT_MAX && atomic_long_read(&vmcomm_front_total) < limit) {
		__skb_unlink(skb, &sk->sk_receive_queue);
		skb_orphan(skb);
		vs->front_size += skb->truesize;
		atomic_long_add(skb->truesize, &vmcomm_front_total);
		__skb_queue_tail(&vs->front, skb);
		WRITE_ONCE(tp->copied_seq, TCP_SKB_CB(skb)->end_seq);
	}
}

static void vmcomm_front_none(struct vmcomm_sock *vs)
{
	atomic_long_sub(vs->front_size, &vmcomm_front_total);
	vs->front_size = 0;
}

/* Back into the receive queue; in whatever state the socket is. Socket lock held. */
void vmcomm_front_put(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;
	struct sk_buff *skb;

	if (likely(skb_queue_empty(&vs->front)))
		return;
	WRITE_ONCE(tcp_sk(sk)->copied_seq, vs->front_seq);
	while ((skb = __skb_dequeue_tail(&vs->front))) {
		vmcomm_inject_charge(sk, skb);
		__skb_queue_head(&sk->sk_receive_queue, skb);
	}
	vmcomm_front_none(vs);
}

/* The socket is dead. Any context. */
void vmcomm_front_drop(struct vmcomm_sock *vs)
{
	__skb_queue_purge(&vs->front);
	vmcomm_front_none(vs);
}

/*
 * What the peer has sent into the window that it knows of must not be thrown away, though there is
 * more in the receive buffer now than it was made for. This is not taken back, unless the program
 * has fixed the size (vmcomm_inject_close()).
 */
static void vmcomm_inject_room(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;
	s64 want = atomic_read(&sk->sk_rmem_alloc) + 2LL * tcp_receive_window(tcp_sk(sk));

	want = min_t(s64, want, VMCOMM_FRONT_MAX);
	if (want <= sk->sk_rcvbuf)
		return;
	vs->rcvbuf_was = sk->sk_rcvbuf;
	WRITE_ONCE(sk->sk_rcvbuf, want);
}

/* The size that a program asked for is what it sees afterwards. Socket lock held. */
void vmcomm_inject_close(struct vmcomm_sock *vs)
{
	if (vs->rcvbuf_was && vs->sk->sk_userlocks & SOCK_RCVBUF_LOCK)
		WRITE_ONCE(vs->sk->sk_rcvbuf, vs->rcvbuf_was);
	vs->rcvbuf_was = 0;
}

/*
 * Bytes that come before the held ones may be megabytes in the peer's TCP, and nobody reads here,
 * so the window is shut: let them in. TCP's timer for delayed acknowledgements tells the peer,
 * again now and then in case it gets lost.
 */
static void vmcomm_inject_open(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;

	vmcomm_front_take(vs, vs->conn.rx.held_at);
	if (vs->opened && time_before(jiffies, vs->opened + HZ / 10))
		return;
	vs->opened = jiffies | 1;
	inet_csk_schedule_ack(sk);
	inet_csk_reset_xmit_timer(sk, ICSK_TIME_DACK, 1, TCP_RTO_MAX);
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

/*
 * Entries that were read to their end. TCP takes an entry off the queue with its last byte, but one
 * that vmcomm_inject_split() cut may have been read up to the cut exactly.
 */
static void vmcomm_inject_tidy(struct sock *sk)
{
	struct sk_buff *skb;

	while ((skb = skb_peek(&sk->sk_receive_queue)) &&
	       !(TCP_SKB_CB(skb)->tcp_flags & TCPHDR_FIN) &&
	       !after(TCP_SKB_CB(skb)->end_seq, tcp_sk(sk)->copied_seq)) {
		__skb_unlink(skb, &sk->sk_receive_queue);
		__kfree_skb(skb);
	}
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
 * Socket lock held; may sleep unless conn.atomic. Return: 0; -EAGAIN: bytes that come before the
 * held ones are still on their way: ask again after a moment without the lock; -ENOMEM: nothing
 * changed.
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

	if (rx->held_len && before(tp->rcv_nxt, x) && sk->sk_state != TCP_CLOSE &&
	    !sock_flag(sk, SOCK_DEAD)) {
		vmcomm_inject_open(vs);
		return -EAGAIN;
	}
	vmcomm_front_put(vs);
	/* With a hole before them nobody reads them. */
	if (!rx->held_len || sock_flag(sk, SOCK_DEAD) || before(tp->rcv_nxt, x))
		return 0;
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
	vmcomm_inject_tidy(sk);

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
	vmcomm_inject_room(vs);
	vmcomm_rx_consume(&vs->conn, n);
	return 0;

err_list:
	__skb_queue_purge(&list);
	return err;
}
