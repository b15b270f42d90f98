/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp.h - a QEMU machine protocol client on sd-event
 *
 * QEMU is not trusted with our health: a line is at most 1 MiB, everything is checked before it is
 * used, and a monitor that stands still costs nothing but the caller's own deadline.
 */
#ifndef VMCOMM_KVM_QMP_H
#define VMCOMM_KVM_QMP_H

#include <jansson.h>
#include <systemd/sd-event.h>

struct qmp;

struct qmp_callbacks {
	/* The greeting is read and commands are accepted. */
	void (*ready)(void *arg);
	/* An event; @data is an object, borrowed. */
	void (*event)(void *arg, const char *name, json_t *data);
	/* The connection is unusable, @text says why. Nothing is called after it. */
	void (*closed)(void *arg, const char *text);
};

/* @result: borrowed, NULL on an error; then @error is QEMU's description */
typedef void (*qmp_reply)(void *arg, json_t *result, const char *error);

/**
 * qmp_open() - connect to a QMP socket
 *
 * Return: 0; negative errno, nothing is called then.
 */
int qmp_open(struct qmp **q, sd_event *event, const char *path, const struct qmp_callbacks *cb,
	     void *arg);

/**
 * qmp_call() - send a command
 * @args: object or NULL; stolen
 *
 * Return: 0: @reply will be called, unless the connection closes or is freed before; -EBUSY: the last
 * command has no reply yet; -EPIPE: the connection is unusable.
 */
int qmp_call(struct qmp *q, const char *command, json_t *args, qmp_reply reply);

/**
 * qmp_last_words() - send a command before qmp_free(), whatever is under way, and wait until it is done
 * @args: object or NULL; stolen
 * @msec: at most that long, which the whole process waits
 *
 * QEMU forgets what it has read from a monitor that is closed.
 *
 * Return: 0: QEMU has done it; -EIO: it says that it cannot, or nothing.
 */
int qmp_last_words(struct qmp *q, const char *command, json_t *args, int msec);

/** qmp_free() - may be called from callbacks */
void qmp_free(struct qmp *q);

#endif
