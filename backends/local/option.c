// SPDX-License-Identifier: LGPL-2.1-or-later
/* option.c - options of streams, and texts */
#include "local.h"

int vmcomm_set(struct vmcomm_stream *s, enum vmcomm_option option, long value)
{
	int err = 0;

	pthread_mutex_lock(&s->lock);
	switch (option) {
	case VMCOMM_OPT_SPIN_US:
		if (value < 0 || value > LOCAL_SPIN_MAX_US)
			err = -EINVAL;
		else
			s->spin_us = s->spin_now = value;
		break;
	case VMCOMM_OPT_RECV_TIMEOUT:
	case VMCOMM_OPT_SEND_TIMEOUT:
		if (value < 0)
			err = -EINVAL;
		else if (option == VMCOMM_OPT_RECV_TIMEOUT)
			s->recv_ms = value;
		else
			s->send_ms = value;
		break;
	default:
		err = -EINVAL;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

int vmcomm_get(struct vmcomm_stream *s, enum vmcomm_option option, long *value)
{
	bool down = __atomic_load_n(&s->member->down, __ATOMIC_ACQUIRE);
	int err = 0;

	pthread_mutex_lock(&s->lock);
	switch (option) {
	case VMCOMM_OPT_SPIN_US:
		*value = s->spin_us;
		break;
	case VMCOMM_OPT_RECV_TIMEOUT:
		*value = s->recv_ms;
		break;
	case VMCOMM_OPT_SEND_TIMEOUT:
		*value = s->send_ms;
		break;
	case VMCOMM_OPT_RECV_QUEUED:
		*value = down ? 0 : (long)vmcomm_rx_unread(&s->conn);
		break;
	case VMCOMM_OPT_SEND_QUEUED:
		*value = down || !vmcomm_conn_attached(&s->conn) ?
				 0 : (long)vmcomm_tx_unread(&s->conn);
		break;
	case VMCOMM_OPT_RING_SIZE:
		*value = s->conn.tx.shift ? 1L << s->conn.tx.shift : 0;
		break;
	case VMCOMM_OPT_PEER_SLOT:
		*value = (long)s->slot;
		break;
	case VMCOMM_OPT_PEER_PORT:
		*value = s->rport;
		break;
	case VMCOMM_OPT_LOCAL_PORT:
		*value = s->lport;
		break;
	default:
		err = -EINVAL;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

const char *vmcomm_version(void)
{
	return VMCOMM_VERSION;
}

const char *vmcomm_strerror(int err)
{
	switch (err < 0 ? -err : err) {
	case 0:
		return "no error";
	case EAGAIN:
		return "nothing can be done without waiting: wait, or poll the descriptor";
	case EINVAL:
		return "a parameter is out of range, or cannot be read: see vmcomm(3)";
	case ENOMEM:
		return "the process has no memory";
	case EBUSY:
		return "the slot is taken, or peers still read what its last member left: wait, or "
		       "choose another one";
	case EPROTO:
		return "that is no vmcomm-keeper, or one of another version: check the path and the "
		       "versions";
	case ENOENT:
		return "there is no such socket: is the keeper running, and the slot open?";
	case ECONNREFUSED:
		return "nobody listens on that port, or at that socket: start the other side first";
	case EHOSTUNREACH:
		return "no member lives in that slot, or has that address: has it joined?";
	case ENOBUFS:
		return "the shared memory of one of the two members is used up: close connections, "
		       "use smaller rings, or give the group more memory";
	case ETIMEDOUT:
		return "no answer in time: is the peer running?";
	case EPIPE:
		return "the peer closed the connection, or this end was shut down for sending";
	case ECONNRESET:
		return "the peer died, or closed the connection without reading all of it";
	case ECONNABORTED:
	case ENOTCONN:
		return "the member has left its group (or this is a child after fork)";
	case EADDRINUSE:
		return "another listener of this member has that port: choose another one";
	case EBADF:
		return "the stream was closed meanwhile";
	case ENOSPC:
		return "too little memory for so many slots: give the group more";
	case EMFILE:
	case ENFILE:
		return "too many open files: raise the limit (ulimit -n)";
	case EACCES:
	case EPERM:
		return "permission denied: check the owner of the slot's socket";
	case ENAMETOOLONG:
		return "the socket's path is too long: at most 107 bytes";
	default:
		return "the system reported an error: look its number up in errno(3)";
	}
}
