// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcgcount.c - plugin for QEMU's TCG: how often each translated block of a guest ran
 *
 *	qemu-system-x86_64 -plugin tcgcount.so,dir=DIRECTORY ...
 *
 * A file DIRECTORY/cmd is a command, and is removed: "reset", or the name of a file to write, with a
 * line "ADDRESS INSTRUCTIONS RUNS" (address in hex) for each block. DIRECTORY/ack appears when it
 * is done. bench/count uses it. Debian does not ship QEMU's header for plugins: what is used of
 * version 1 of its interface is declared here.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define BUCKETS 65536u

struct qemu_plugin_tb;
struct qemu_info;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*cb)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *ptr,
					      uint64_t imm);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
extern PUBLIC int qemu_plugin_version;
PUBLIC int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv);

PUBLIC int qemu_plugin_version = 1;

struct block {
	uint64_t addr, insns, runs;
	struct block *next;
};

static struct block *table[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char cmd_path[512], ack_path[512];

/* A block that is translated again, after the cache was flushed, goes on where it was. */
static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uint64_t addr = qemu_plugin_tb_vaddr(tb), insns = qemu_plugin_tb_n_insns(tb);
	struct block **first = &table[(addr * 0x9e3779b97f4a7c15u) >> 48], *b;

	(void)id;
	pthread_mutex_lock(&lock);
	for (b = *first; b && (b->addr != addr || b->insns != insns); b = b->next)
		;
	if (!b) {
		b = calloc(1, sizeof(*b));
		if (!b)
			abort();
		b->addr = addr;
		b->insns = insns;
		b->next = *first;
		*first = b;
	}
	pthread_mutex_unlock(&lock);
	qemu_plugin_register_vcpu_tb_exec_inline(tb, 0 /* add */, &b->runs, 1);
}

static void each_block(FILE *out)
{
	struct block *b;
	uint32_t i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < BUCKETS; i++) {
		for (b = table[i]; b; b = b->next) {
			if (!out)
				b->runs = 0;
			else if (b->runs)
				fprintf(out, "%llx %llu %llu\n", (unsigned long long)b->addr,
					(unsigned long long)b->insns, (unsigned long long)b->runs);
		}
	}
	pthread_mutex_unlock(&lock);
}

static void *commands(void *arg)
{
	char line[512];
	FILE *f;

	for (;; usleep(20000)) {
		f = fopen(cmd_path, "r");
		if (!f)
			continue;
		if (!fgets(line, sizeof(line), f))
			line[0] = 0;
		fclose(f);
		unlink(cmd_path);
		line[strcspn(line, "\n")] = 0;
		f = strcmp(line, "reset") ? fopen(line, "w") : NULL;
		each_block(f);
		if (f)
			fclose(f);
		f = fopen(ack_path, "w");
		if (f)
			fclose(f);
	}
	return arg;
}

PUBLIC int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
	pthread_t thread;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "dir=", 4)) {
		fputs("tcgcount: dir=DIRECTORY is missing\n", stderr);
		return -1;
	}
	snprintf(cmd_path, sizeof(cmd_path), "%s/cmd", argv[0] + 4);
	snprintf(ack_path, sizeof(ack_path), "%s/ack", argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return pthread_create(&thread, NULL, commands, NULL);
}
