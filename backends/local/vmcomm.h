/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmcomm.h - byte streams through shared memory between processes of one host
 *
 * A *member* is a process (or a part of one) in one slot of a *group*. The group's memory and
 * doorbells come from a vmcomm-keeper, or from a *hub* inside one of the processes. Between two
 * members a *stream* is a reliable, ordered connection of bytes in both directions, as a TCP
 * connection is, but without TCP: the bytes go through rings in shared memory, and a sleeping
 * reader or writer is woken by an eventfd.
 *
 * Unless said otherwise every function may be called by any thread at any time, returns 0 (or a
 * count) on success and a negative errno otherwise; vmcomm_strerror() makes a sentence of it. No
 * function raises SIGPIPE. A member is one trust domain
 * with its group: it can read what others send to each other, it cannot crash or hang them.
 *
 * See vmcomm(3) and docs/library.md.
 */
#ifndef VMCOMM_H
#define VMCOMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMCOMM_API __attribute__((visibility("default")))

struct vmcomm_hub;
struct vmcomm_member;
struct vmcomm_listener;
struct vmcomm_stream;

/** vmcomm_version() - "0.1.0" */
VMCOMM_API const char *vmcomm_version(void);

/**
 * vmcomm_strerror() - what happened and what to do, in one sentence
 * @err: returned by a function of this library, negative (a positive errno works too)
 *
 * Return: a constant string.
 */
VMCOMM_API const char *vmcomm_strerror(int err);

/* --- groups inside one process: hubs --- */

/* Set .size = sizeof(struct vmcomm_hub_config); what is 0 gets its default. */
struct vmcomm_hub_config {
	size_t size;
	const char *gid;    /* name of the group, for humans; default "local" */
	unsigned int slots; /* how many members at a time, 2 to 64; default 8 */
	uint64_t memory;    /* bytes, a power of two from 4 MiB; default 256 MiB, used on demand */
};

/**
 * vmcomm_hub_new() - create the memory and doorbells of a group in this process
 * @hub: result
 * @config: NULL: all defaults
 *
 * A thread of the hub looks after its members: it tells the others when one died. If the process
 * of the hub itself dies, the members go on, and find out about deaths within a second.
 *
 * Return: 0; -EINVAL: a value is out of range; -ENOSPC: too little memory for so many slots; or
 * what memfd_create(), eventfd() and pthread_create() report.
 */
VMCOMM_API int vmcomm_hub_new(struct vmcomm_hub **hub, const struct vmcomm_hub_config *config);

/**
 * vmcomm_hub_open() - admit a member to a slot
 * @slot: 0 to slots - 1
 * @addr: its addresses, IPv4 or IPv6, separated by commas; NULL: none, others name it by its slot
 *
 * The descriptor that is returned is the membership: whoever has it can join, once, by
 * vmcomm_join_fd(), in this process or in another one that gets the descriptor by fork() and
 * execve(), or by SCM_RIGHTS. It is close-on-exec. Closing the last copy gives the slot back.
 *
 * Return: a descriptor, which belongs to the caller; -EINVAL: no such slot, or an address that
 * cannot be read; -EBUSY: the slot is taken, or peers still read what its last member left there.
 */
VMCOMM_API int vmcomm_hub_open(struct vmcomm_hub *hub, unsigned int slot, const char *addr);

/**
 * vmcomm_hub_free() - let go of a hub; members that joined go on without it
 *
 * In a child after fork() it only frees memory.
 */
VMCOMM_API void vmcomm_hub_free(struct vmcomm_hub *hub);

/* --- membership --- */

/* Set .size = sizeof(struct vmcomm_member_config); what is 0 gets its default. */
struct vmcomm_member_config {
	size_t size;
	const char *name;	/* for humans, in `vmcommctl`; default: the program's name */
	unsigned int ring_size; /* bytes for each direction of a stream; a power of two from 4 KiB
				 * to 4 MiB; default 1 MiB; less is used while memory is short */
	int timeout_ms;		/* for joining; default 5000 */
};

/**
 * vmcomm_join() - join the group of a vmcomm-keeper
 * @member: result
 * @path: socket of the slot, for instance "/run/vmcomm/NAME/slot-0.sock"
 * @config: NULL: all defaults
 *
 * Starts a thread that looks after doorbells while no other thread waits for one. Blocks all
 * signals in that thread.
 *
 * Return: 0; what connect() reports: nobody listens there, or the slot is taken; -EBUSY: the slot
 * is taken, or peers still hold on to its last member's memory; -EPROTO: that is no keeper, or
 * one of another version; -ETIMEDOUT.
 */
VMCOMM_API int vmcomm_join(struct vmcomm_member **member, const char *path,
			   const struct vmcomm_member_config *config);

/**
 * vmcomm_join_fd() - join with a membership from vmcomm_hub_open()
 * @fd: belongs to the member afterwards, also on failure
 *
 * Otherwise as vmcomm_join().
 */
VMCOMM_API int vmcomm_join_fd(struct vmcomm_member **member, int fd,
			      const struct vmcomm_member_config *config);

/**
 * vmcomm_leave() - end a membership
 *
 * No other call with this member or its listeners may be running. Streams that are still open
 * are reset; they and the listeners stay valid and have to be closed. Peers can read what was sent
 * before.
 */
VMCOMM_API void vmcomm_leave(struct vmcomm_member *member);

/** vmcomm_member_slot() - the slot's number, by which others can name this member */
VMCOMM_API unsigned int vmcomm_member_slot(const struct vmcomm_member *member);

/* --- connections --- */

/**
 * vmcomm_connect() - open a stream to another member
 * @stream: result
 * @to: "3": the member in slot 3; or one of its addresses, IPv4 or IPv6
 * @port: that it listens on, 1 to 65535
 * @timeout_ms: how long to wait for its answer; 0: 10 s; negative: for ever
 *
 * Return: 0; -EINVAL: @to cannot be read, is this member itself, or @port is 0; -EHOSTUNREACH:
 * nobody lives in that slot or has that address; -ECONNREFUSED: nobody listens on that port;
 * -ENOBUFS: this member's or the peer's shared memory is used up; -ETIMEDOUT; -ECONNRESET: the
 * peer died.
 */
VMCOMM_API int vmcomm_connect(struct vmcomm_stream **stream, struct vmcomm_member *member,
			      const char *to, uint16_t port, int timeout_ms);

/**
 * vmcomm_listen() - take connections to a port
 * @port: 1 to 65535; 0: the library picks one
 * @backlog: connections that may wait for vmcomm_accept(); 0: 128. Those beyond are not refused:
 *	their vmcomm_connect() waits.
 *
 * Return: 0; -EADDRINUSE; -ENOMEM.
 */
VMCOMM_API int vmcomm_listen(struct vmcomm_listener **listener, struct vmcomm_member *member,
			     uint16_t port, unsigned int backlog);

/** vmcomm_listener_port() - the port that it listens on */
VMCOMM_API uint16_t vmcomm_listener_port(const struct vmcomm_listener *listener);

/* Flags, of vmcomm_accept(), vmcomm_send() and vmcomm_recv() */
#define VMCOMM_DONTWAIT 1 /* -EAGAIN instead of waiting */
#define VMCOMM_PEEK	2 /* recv: leave the bytes there */
#define VMCOMM_WAITALL	4 /* recv: wait until all of @len is there, or the end */

/**
 * vmcomm_accept() - take the next connection
 * @flags: 0 or VMCOMM_DONTWAIT
 *
 * Return: 0; -EAGAIN; -EINVAL: the listener was closed meanwhile, or an unknown flag; -ECONNABORTED:
 * the member left its group.
 */
VMCOMM_API int vmcomm_accept(struct vmcomm_stream **stream, struct vmcomm_listener *listener,
			     int flags);

/**
 * vmcomm_listener_close() - stop listening and free the listener
 *
 * Connections that nobody took are reset. A vmcomm_accept() that waits returns -EINVAL.
 */
VMCOMM_API void vmcomm_listener_close(struct vmcomm_listener *listener);

/**
 * vmcomm_send() - write bytes to the peer
 * @flags: 0 or VMCOMM_DONTWAIT
 *
 * Without VMCOMM_DONTWAIT all of @len is taken, unless an error or a timeout comes in between.
 *
 * Return: bytes taken; -EAGAIN: none, the ring is full (or the timeout passed); -EPIPE: the peer
 * closed the stream, or vmcomm_shutdown() was called; -ECONNRESET: the peer died.
 */
VMCOMM_API ssize_t vmcomm_send(struct vmcomm_stream *stream, const void *buf, size_t len,
			       int flags);

/**
 * vmcomm_recv() - read bytes from the peer
 * @flags: VMCOMM_DONTWAIT, VMCOMM_PEEK, VMCOMM_WAITALL
 *
 * With VMCOMM_PEEK and VMCOMM_WAITALL together at most a ring full of bytes is waited for.
 *
 * Return: bytes read; 0: the end of the stream (or @len is 0); -EAGAIN; -ECONNRESET: the peer died
 * or closed without reading what was sent to it; all that it had sent was read before.
 */
VMCOMM_API ssize_t vmcomm_recv(struct vmcomm_stream *stream, void *buf, size_t len, int flags);

#define VMCOMM_SHUT_RD 1
#define VMCOMM_SHUT_WR 2

/**
 * vmcomm_shutdown() - end one direction or both
 * @how: VMCOMM_SHUT_WR: the peer reads what was sent and then the end. VMCOMM_SHUT_RD: readers here
 *	get what has come, and then the end.
 *
 * Return: 0; -EINVAL.
 */
VMCOMM_API int vmcomm_shutdown(struct vmcomm_stream *stream, int how);

/**
 * vmcomm_close() - end both directions and free the stream
 *
 * The peer can read all that was sent before, however late. If bytes of the peer's were not read
 * here, it gets -ECONNRESET after them, as TCP does. Other threads that wait in a call with this
 * stream are woken, and get -EBADF; no new call may begin.
 */
VMCOMM_API void vmcomm_close(struct vmcomm_stream *stream);

/* --- waiting for many --- */

/**
 * vmcomm_stream_fd() - a descriptor for poll(2), select(2) and epoll(7)
 *
 * It is readable when vmcomm_recv() would not wait, writable when vmcomm_send() would take bytes,
 * and hangs up (POLLHUP) when the connection is over in both directions. Level-triggered, as a
 * socket's. Nothing else may be done with it; it belongs to the stream and is closed with it.
 *
 * From the first call of this function on a thread of the member serves its doorbells; that costs
 * some microseconds more per wake-up than a blocking call does.
 *
 * Return: a descriptor, at each call the same; -EMFILE and the like.
 */
VMCOMM_API int vmcomm_stream_fd(struct vmcomm_stream *stream);

/** vmcomm_listener_fd() - the same: readable when vmcomm_accept() would not wait */
VMCOMM_API int vmcomm_listener_fd(struct vmcomm_listener *listener);

enum vmcomm_option {
	VMCOMM_OPT_SPIN_US = 1,	 /* look for up to so long before going to sleep; 0 (default) to
				  * 10000; less is used while it does not pay */
	VMCOMM_OPT_RECV_TIMEOUT, /* milliseconds; 0 (default): none */
	VMCOMM_OPT_SEND_TIMEOUT,
	VMCOMM_OPT_RECV_QUEUED,	 /* read only: bytes that can be read now */
	VMCOMM_OPT_SEND_QUEUED,	 /* read only: bytes that the peer has not read */
	VMCOMM_OPT_RING_SIZE,	 /* read only: of the ring that this end writes into */
	VMCOMM_OPT_PEER_SLOT,	 /* read only */
	VMCOMM_OPT_PEER_PORT,	 /* read only */
	VMCOMM_OPT_LOCAL_PORT,	 /* read only */
};

/** vmcomm_set() - change an option. Return: 0; -EINVAL: unknown, read only or out of range. */
VMCOMM_API int vmcomm_set(struct vmcomm_stream *stream, enum vmcomm_option option, long value);

/** vmcomm_get() - read an option. Return: 0; -EINVAL: unknown. */
VMCOMM_API int vmcomm_get(struct vmcomm_stream *stream, enum vmcomm_option option, long *value);

#ifdef __cplusplus
}
#endif

#endif
