// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * shrink.c - a smaller run that fails in the same way
 *
 * Each attempt is a process. Fewer VMs, connections, bytes and faults, each tried with some other
 * schedules, as the one that failed is gone as soon as anything is different.
 */
#include <sys/resource.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define SCHEDULES 10  /* for each attempt */
#define CPU	  20  /* seconds of one run: what takes longer is not smaller */
#define SECONDS	  100 /* for all */

bool sim_shrinks;
static char kind[256]; /* of the failure */
static time_t end;

/* How does it fail with what is in "force"? Return: false: not at all. */
static bool sim_try(u64 seed, char *how, size_t size)
{
	struct rlimit limit = {CPU, CPU};
	int fd[2], null, status;
	ssize_t n;
	pid_t pid;

	if (pipe(fd))
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid) {
		null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		dup2(null, 2);
		close(fd[0]);
		setrlimit(RLIMIT_CPU, &limit);
		sim_one(seed, false, fd[1]);
		_exit(0);
	}
	close(fd[1]);
	n = read(fd[0], how, size - 1);
	how[n > 0 ? n : 0] = 0;
	close(fd[0]);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

static bool sim_same(u64 seed)
{
	u64 schedule = sim.schedule, i;
	char how[sizeof(kind)];

	for (i = 0; i < SCHEDULES && time(NULL) < end; i++) {
		sim.schedule = i ? i : schedule;
		if (sim_try(seed, how, sizeof(how)) && !strcmp(how, kind))
			return true;
	}
	sim.schedule = schedule;
	return false;
}

static bool sim_smaller(u64 seed, int *value, int to)
{
	int old = *value;

	if (old == to)
		return false;
	*value = to;
	if (sim_same(seed))
		return true;
	*value = old;
	return false;
}

int sim_shrink(u64 seed)
{
	struct {
		int *value, to[4];
	} all[] = {{&force.lies, {0, 0, 0, 0}},	    {&force.oom, {0, 0, 0, 0}},
		   {&force.conns, {1, 2, 4, 8}},    {&force.vms, {2, 3, 4, 4}},
		   {&force.hosts, {1, 2, 2, 2}},    {&force.weak, {0, 0, 0, 0}},
		   {&force.faults, {0, 1, 2, 4}},   {&force.bytes, {64, 512, 4096, 16384}}};
	u32 i, k, bit;

	end = time(NULL) + SECONDS;
	if (!sim_try(seed, kind, sizeof(kind))) {
		fprintf(stderr, "seed 0x%llx does not fail\n", (unsigned long long)seed);
		return 1;
	}
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (k = 0; k < 4 && (!k || all[i].to[k] != all[i].to[k - 1]); k++)
			if (sim_smaller(seed, all[i].value, all[i].to[k]))
				break;
	for (bit = 0; bit < 12; bit++) {
		u64 drop = sim.drop;

		sim.drop |= 1ULL << bit;
		if (!sim_same(seed))
			sim.drop = drop;
	}
	printf("--- the end of a smaller run that fails in the same way:\n");
	fflush(stdout);
	sim_one(seed, true, -1);
	return 1;
}

/* From the stack of a simulated thread: begin again as a new process, whose output is cut. */
void sim_shrink_exec(void)
{
	char command[768], options[256];

	sim_options(options, sizeof(options));
	snprintf(command, sizeof(command), "/proc/%d/exe --shrink --seed 0x%llx%s 2>&1 | tail -n 70 >&2",
		 (int)getpid(), (unsigned long long)sim.seed, options);
	fflush(stdout);
	if (system(command))
		_exit(1);
	_exit(1);
}
