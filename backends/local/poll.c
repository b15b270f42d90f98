// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * poll.c - descriptors for poll(2) (M10)
 *
 * A stream's descriptor is one end of a socket pair, because that can be readable and writable
 * independently of each other, and can hang up. It is readable while a byte of ours waits in it,
 * not writable while a message of ours fills its small send buffer.
 *
 * Whoever reads or writes sets it right afterwards, and if there is nothing to read (no room) asks
 * the peer for an event; an event only ever makes it readable (writable).
 */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "local.h"

#define LOCAL_FILLER 2048

static void set_in(struct vmcomm_stream *s, bool on)
{
	char byte = 0;

	if (s->poll_in == on)
		return;
	if (on && send(s->poll_mine, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		return;
	if (!on && recv(s->poll_user, &byte, 1, MSG_DONTWAIT) != 1)
		return;
	s->poll_in = on;
}

static void set_out(struct vmcomm_stream *s, bool on)
{
	static const char filler[LOCAL_FILLER];
	char junk[2 * LOCAL_FILLER];

	if (s->poll_out == on)
		return;
	if (on && recv(s->poll_mine, junk, sizeof(junk), MSG_DONTWAIT) <= 0)
		return;
	if (!on && send(s->poll_user, filler, sizeof(filler), MSG_DONTWAIT | MSG_NOSIGNAL) <= 0)
		return;
	s->poll_out = on;
}

static void set_hup(struct vmcomm_stream *s)
{
	if (s->poll_hup)
		return;
	set_in(s, true);
	set_out(s, true);
	shutdown(s->poll_mine, SHUT_RDWR);
	s->poll_hup = true;
}

static bool can_read(struct vmcomm_stream *s)
{
	return vmcomm_rx_readable(&s->conn, 0) || vmcomm_rx_fin(&s->conn) ||
	       VMCOMM_READ_ONCE(s->rd_shut);
}

/* poll_lock held: both directions are over, with or without bytes left to read */
static void look_over(struct vmcomm_stream *s)
{
	if (local_stream_over(s) || (VMCOMM_READ_ONCE(s->wr_shut) && vmcomm_rx_fin(&s->conn)))
		set_hup(s);
}

/* s->lock held, after reading or writing */
void local_poll_sync(struct vmcomm_stream *s)
{
	if (s->poll_user < 0)
		return;
	pthread_mutex_lock(&s->poll_lock);
	look_over(s);
	if (!s->poll_hup) {
		set_in(s, can_read(s) || vmcomm_rx_arm(&s->conn, 0));
		set_out(s, VMCOMM_READ_ONCE(s->wr_shut) || vmcomm_tx_writable(&s->conn) ||
				   vmcomm_tx_arm(&s->conn, (1u << s->conn.tx.shift) / 3 + 1));
	}
	pthread_mutex_unlock(&s->poll_lock);
}

/* An event came; s->lock is not held */
void local_poll_wake(struct vmcomm_stream *s)
{
	pthread_mutex_lock(&s->poll_lock);
	if (s->poll_user >= 0) {
		look_over(s);
		if (!s->poll_hup && can_read(s))
			set_in(s, true);
		if (!s->poll_hup && vmcomm_tx_writable(&s->conn))
			set_out(s, true);
	}
	pthread_mutex_unlock(&s->poll_lock);
}

void local_poll_deinit(struct vmcomm_stream *s)
{
	if (s->poll_user < 0)
		return;
	close(s->poll_user);
	close(s->poll_mine);
	local_pollers_add(s->member, -1);
}

int vmcomm_stream_fd(struct vmcomm_stream *s)
{
	int sv[2], size = 1, err = 0;

	pthread_mutex_lock(&s->lock);
	if (s->poll_user < 0) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv)) {
			err = -errno;
			goto out;
		}
		/* The kernel's minimum: one filler makes it unwritable. */
		setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		local_pollers_add(s->member, 1);
		pthread_mutex_lock(&s->poll_lock);
		s->poll_mine = sv[1];
		s->poll_in = false;
		s->poll_out = true;
		s->poll_user = sv[0];
		pthread_mutex_unlock(&s->poll_lock);
		local_poll_sync(s);
	}
	err = s->poll_user;
out:
	pthread_mutex_unlock(&s->lock);
	return err;
}
