// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - vmcomm-sim: one seed, many seeds, or seeds until the time is over */
#include <getopt.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "sim.h"

struct sim sim;

struct sim_force force = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
const char *const sim_app_name[SIM_APPS] = {
	[SIM_APP_BLOCK] = "block",
	[SIM_APP_LEVEL] = "level",
	[SIM_APP_EDGE] = "edge",
	[SIM_APP_LOOP] = "loop",
};
static bool digest;
static int report = -1; /* where to tell the kind of a failure, and nothing else */

void sim_trace_(const char *fmt, ...)
{
	va_list ap;

	printf("%10llu ", (unsigned long long)sim.now);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* What the seed alone does not tell has to be said again for a replay. */
void sim_options(char *text, size_t size)
{
	static const char *const memory[] = {"x86", "weak"};
	const struct {
		const char *name;
		int value;
	} all[] = {{"vms", force.vms},	     {"hosts", force.hosts}, {"conns", force.conns},
		   {"bytes", force.bytes},   {"faults", force.faults}, {"lies", force.lies},
		   {"oom", force.oom},	     {"late", force.late}};
	size_t n = 0;
	u32 i;

	text[0] = 0;
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].value >= 0)
			n += (size_t)snprintf(text + n, size - n, " --%s %d", all[i].name, all[i].value);
	if (force.weak >= 0)
		n += (size_t)snprintf(text + n, size - n, " --memory %s", memory[force.weak]);
	if (force.app >= 0)
		n += (size_t)snprintf(text + n, size - n, " --app %s", sim_app_name[force.app]);
	if (force.mask >= 0)
		n += (size_t)snprintf(text + n, size - n, " --only 0x%x", (u32)force.mask);
	if (sim.drop)
		n += (size_t)snprintf(text + n, size - n, " --drop 0x%llx", (unsigned long long)sim.drop);
	if (sim.schedule)
		snprintf(text + n, size - n, " --schedule %llu", (unsigned long long)sim.schedule);
}

void sim_fail(const char *fmt, ...)
{
	char options[256];
	va_list ap;

	if (report >= 0) {
		if (write(report, fmt, strlen(fmt)) < 0)
			_exit(2);
		_exit(1);
	}
	sim_options(options, sizeof(options));
	fflush(stdout);
	fprintf(stderr, "FAILED seed 0x%llx step %llu time %llu: ", (unsigned long long)sim.seed,
		(unsigned long long)sim.steps, (unsigned long long)sim.now);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  in thread %s of %s; replay: vmcomm-sim --seed 0x%llx%s --trace\n",
		sim.cur ? sim.cur->name : "-", sim.cur && sim.cur->vm ? sim.cur->vm->name : "the world",
		(unsigned long long)sim.seed, options);
	sim_check_show();
	fflush(stderr);
	if (getenv("SIM_ABORT"))
		abort();
	if (sim_shrinks)
		sim_shrink_exec();
	_exit(1);
}

static void sim_profile_make(void)
{
	struct sim_profile *p = &sim.p;
	struct vmcomm_layout lay;
	u32 i;

	memset(p, 0, sizeof(*p));
	p->vms = sim_chance(3) ? sim_between(3, 4) : 2;
	p->hosts = sim_between(1, 2);
	p->conns = sim_chance(4) ? sim_between(1, 20) : sim_between(1, 5);
	p->chunk_shift = sim_between(16, 18);
	p->region = 1u << 22;
	p->weak = sim_chance(3);
	p->switch_mean = 1u << sim_below(7);
	p->burst = sim_chance(2) ? sim_between(10, 200) : 0;
	p->stall = sim_chance(2) ? sim_between(5, 300) : 0;
	p->drain = 1u << sim_below(9);
	p->early = sim_between(1, 8);
	p->tcp_delay = 1u << sim_between(1, 12);
	p->bell_delay = 1u << sim_between(0, 10);
	p->window = 1u << sim_between(8, 15);
	p->tick = sim_between(5000, 60000);
	p->bytes = 1u << sim_between(8, 17);
	p->faults = sim_chance(6) ? 0 : sim_between(1, 12);
	p->oom = sim_chance(4) ? sim_between(3, 50) : 0;
	p->fault_mask = 0;
	for (i = 0; i < SIM_FAULTS; i++)
		if (sim_chance(2))
			p->fault_mask |= 1u << i;
	p->groups = 1;
	if (p->vms > 2 && sim_chance(2))
		p->hosts = sim_between(2, 4);
	if (sim_chance(64)) {
		p->vms = sim_between(5, 16);
		p->hosts = sim_between(1, 8);
		p->conns = sim_between(5, 40);
	}
	if (sim_chance(6))
		p->lies = 1u << sim_between(2, 11);
	if (force.lies >= 0)
		p->lies = (u32)force.lies;
	if (p->lies) {
		p->groups = 2;
		p->vms = p->vms < 4 ? 4 : p->vms;
		p->hosts = p->hosts > 2 ? 4 : 2;
		p->conns += 4;
	}
	p->slots = p->vms / p->groups + (p->vms & (p->groups - 1)) + sim_below(3);
	if (p->slots < 2)
		p->slots = 2;

	if (force.vms > 0) {
		p->vms = (u32)force.vms;
		/* No other dice than without it: the plan stays the same. */
		p->slots = p->vms < VMCOMM_SLOTS_MAX ? p->vms + (sim.seed & 1) : p->vms;
	}
	if (force.hosts > 0)
		p->hosts = (u32)force.hosts;
	if (p->hosts % p->groups)
		p->hosts++;
	if (force.conns > 0)
		p->conns = (u32)force.conns;
	if (force.bytes > 0)
		p->bytes = (u32)force.bytes;
	if (force.weak >= 0)
		p->weak = (u32)force.weak;
	if (force.mask >= 0)
		p->fault_mask = (u32)force.mask;
	if (force.faults >= 0)
		p->faults = (u32)force.faults;
	if (!p->fault_mask)
		p->faults = 0;
	if (p->faults > SIM_PLAN_MAX)
		p->faults = SIM_PLAN_MAX;
	/* A VM needs as many blocks as there are slots to come up. */
	if (p->oom && p->oom < 2 * p->slots)
		p->oom = 2 * p->slots;
	if (force.oom >= 0)
		p->oom = (u32)force.oom;
	p->late = sim_chance(4) ? sim_between(1, 8) : 0;
	if (force.late >= 0)
		p->late = (u32)force.late;
	for (i = 0; i < SIM_PLAN_MAX; i++) {
		sim.plan[i].delay = sim_size(2 * p->tick);
		do
			sim.plan[i].fault = sim_below(SIM_FAULTS);
		while (p->fault_mask && !(p->fault_mask & 1u << sim.plan[i].fault));
		sim.plan[i].vm = (u32)sim_rng();
	}
	/* Small, so that the heap runs out; but room for four chunks in each slot. */
	while (vmcomm_layout_compute(&lay, p->region, p->slots, p->chunk_shift))
		if (p->chunk_shift > VMCOMM_CHUNK_SHIFT_MIN)
			p->chunk_shift--;
		else
			p->region *= 2;
}

static void sim_profile_print(void)
{
	const struct sim_profile *p = &sim.p;
	u32 i;

	printf("seed 0x%llx: %u VMs, %u hosts, %u connections of up to %u bytes, %u slots, chunks "
	       "2^%u, %s memory, switch %u burst %u stall %u drain %u, TCP delay %u window %u, doorbell "
	       "%u, tick %u, oom %u, late %u, lies %u, %u faults:",
	       (unsigned long long)sim.seed, p->vms, p->hosts, p->conns, p->bytes, p->slots,
	       p->chunk_shift, p->weak ? "weak" : "x86", p->switch_mean, p->burst, p->stall, p->drain,
	       p->tcp_delay, p->window, p->bell_delay, p->tick, p->oom, p->late, p->lies, p->faults);
	for (i = 0; i < SIM_FAULTS; i++)
		if (p->fault_mask & 1u << i)
			printf(" %s", sim_fault_name[i]);
	putchar('\n');
}

void sim_one(u64 seed, bool trace, int fd)
{
	u64 steps = sim.steps;
	u32 i, k;

	report = fd;
	sim.seed = seed;
	sim.rng = seed;
	sim.now = 0;
	sim.memory_clock = 1;
	sim.finished = false;
	sim.faults_over = false;
	sim.trace = trace;
	sim.lose = 0;
	sim.lying = false;
	sim.spoiled = false;
	sim.over = false;
	sim.reverts = 0;
	sim.removes = 0;
	sim.restores = 0;
	sim.cur = NULL;
	sim_sched_reset();
	sim_profile_make();
	if (trace)
		sim_profile_print();
	/* What is planned stays the same with another schedule. */
	sim.rng = seed ^ sim.schedule * 0xd1342543de82ef95ULL ^ 0x5c4ed01eULL;
	for (i = 0; i < sim.p.vms; i++) {
		struct sim_vm *vm = &sim.vm[i];

		memset(vm, 0, sizeof(*vm));
		vm->id = i;
		vm->group = i % sim.p.groups;
		vm->newer = sim_chance(4);
		snprintf(vm->name, sizeof(vm->name), i < 26 ? "VM %c" : "VM %c2", 'A' + (int)(i % 26));
		vm->addr[10] = vm->addr[11] = 0xff;
		vm->addr[12] = 10;
		vm->addr[15] = (u8)(i + 1);
		vm->uuid[0] = (u8)(i + 1);
		vm->ncpu = sim_chance(2) ? 1 : sim_between(2, SIM_CPUS_MAX);
		for (k = 0; k < vm->ncpu; k++)
			vm->cpu[k].vm = vm;
		vm->ring_first = sim_between(12, 14);
		vm->ring_max = sim_between(vm->ring_first, 16);
		vm->crashed = true; /* until it boots */
	}
	for (i = 0; i < sim.p.hosts; i++)
		sim_host_init(&sim.host[i], i);
	sim_spawn(NULL, NULL, "world", sim_world, NULL);
	sim_sched_run();
	for (i = 0; i < sim.socks; i++) {
		if (sim.sock[i]->client) {
			free(sim.sock[i]->out->buf);
			free(sim.sock[i]->in->buf);
			free(sim.sock[i]->out);
			free(sim.sock[i]->in);
		}
	}
	for (i = 0; i < sim.socks; i++)
		free(sim.sock[i]);
	sim.socks = 0;
	sim_memory_reset();
	/* Two runs that end with the same numbers were the same. */
	if (digest)
		printf("seed 0x%llx: %llu steps, time %llu, %llx\n", (unsigned long long)seed,
		       (unsigned long long)(sim.steps - steps), (unsigned long long)sim.now,
		       (unsigned long long)sim.rng);
}

static double sim_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* @start: on the clock on the wall */
static void sim_summary(u64 seeds, double start)
{
	double cpu = sim_clock(CLOCK_PROCESS_CPUTIME_ID);
	u32 i;

	printf("%llu seeds, %llu steps, %.1f s, %.1f s of CPU, %.1f million steps per minute of CPU\n",
	       (unsigned long long)seeds, (unsigned long long)sim.steps,
	       sim_clock(CLOCK_MONOTONIC) - start, cpu,
	       (double)sim.steps / 1e6 / (cpu > 0 ? cpu : 1) * 60);
	printf("  %llu connections (%llu ends attached, %llu of them moved out), %llu ends of file, %llu "
	       "resets\n",
	       (unsigned long long)sim.count.conns, (unsigned long long)sim.count.attached,
	       (unsigned long long)sim.count.evicts, (unsigned long long)sim.count.eofs,
	       (unsigned long long)sim.count.resets);
	printf("  %llu bytes, %llu through rings, %llu held, %llu pending\n",
	       (unsigned long long)sim.count.bytes, (unsigned long long)sim.count.ring_bytes,
	       (unsigned long long)sim.count.held, (unsigned long long)sim.count.pended);
	printf("  %llu doorbells (%.2f per KiB in rings), %llu lost, %llu wakes in ticks, %llu early "
	       "and %llu late loads, %llu pages back\n  %llu moves (%llu unanswered, %llu meetings), "
	       "%llu reverts, %llu lies\n",
	       (unsigned long long)sim.count.doorbells,
	       sim.count.ring_bytes ? (double)sim.count.doorbells * 1024 / (double)sim.count.ring_bytes
				    : 0.0,
	       (unsigned long long)sim.count.bells_lost, (unsigned long long)sim.count.backstops,
	       (unsigned long long)sim.count.early, (unsigned long long)sim.count.late,
	       (unsigned long long)sim.count.reclaims, (unsigned long long)sim.count.moves,
	       (unsigned long long)sim.count.unanswered, (unsigned long long)sim.count.meets,
	       (unsigned long long)sim.count.reverts, (unsigned long long)sim.count.lies);
	printf("  %llu restores, %llu connections set back, %llu ends found out in shared memory\n",
	       (unsigned long long)sim.count.restores, (unsigned long long)sim.count.set_backs,
	       (unsigned long long)sim.count.found);
	printf("  %llu polls slept, %llu said ready for nothing, %llu peeks\n",
	       (unsigned long long)sim.count.polls, (unsigned long long)sim.count.spurious,
	       (unsigned long long)sim.count.peeks);
	printf("  faults:");
	for (i = 0; i < SIM_FAULTS; i++)
		printf(" %s %llu", sim_fault_name[i], (unsigned long long)sim.count.faults[i]);
	putchar('\n');
}

static const char usage[] =
	"usage: vmcomm-sim [--seed N | --seeds N..M | --minutes T] [options]\n"
	"  --seed N         run one seed (default: a fresh one)\n"
	"  --seeds N..M     run seeds N to M\n"
	"  --minutes T      run fresh seeds for T minutes; --cpu-minutes T: of this process's CPU\n"
	"                   time, with a summary every five of them\n"
	"  --keep-going     go on after a failure, print a list of failed seeds at the end\n"
	"  --vms N --hosts N --conns N --bytes N   fix what the seed would choose\n"
	"  --memory x86|weak  memory model\n"
	"  --faults N       how many; 0: none\n"
	"  --only NAMES     kinds of faults, separated by commas\n"
	"  --lies N         a VM lies each N units of time; 0: never\n"
	"  --oom N          one allocation in N fails; 0: none\n"
	"  --late N         one mapping of a peer's memory in N has to wait; 0: none\n"
	"  --app block|level|edge|loop  all programs sleep in their calls, or poll: see poll.c\n"
	"  --drop MASK      leave out faults of the plan, a bit each; --schedule N  another schedule\n"
	"  --trace          print what happens\n"
	"  --shrink         look for a smaller run that fails in the same way (done by itself after a\n"
	"                   failure, unless SIM_NO_SHRINK is set), print the end of its trace\n"
	"  --digest         print after each seed what its run came to\n"
	"  --list           print the seeds' settings\n";

static int sim_mask(const char *names)
{
	char copy[256], *name, *save = NULL;
	int mask = 0;
	u32 i;

	if (names[0] == '0')
		return (int)strtoul(names, NULL, 0);
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < SIM_FAULTS && strcmp(name, sim_fault_name[i]); i++)
			;
		if (i == SIM_FAULTS) {
			fprintf(stderr, "vmcomm-sim: no fault is called %s\n", name);
			exit(2);
		}
		mask |= 1 << i;
	}
	return mask;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{"seed", 1, NULL, 's'},	 {"seeds", 1, NULL, 'S'},   {"minutes", 1, NULL, 'm'},
		{"vms", 1, NULL, 'v'},	 {"hosts", 1, NULL, 'h'},   {"conns", 1, NULL, 'c'},
		{"bytes", 1, NULL, 'b'}, {"memory", 1, NULL, 'M'},  {"faults", 1, NULL, 'f'},
		{"lies", 1, NULL, 'L'},	 {"oom", 1, NULL, 'O'},	    {"schedule", 1, NULL, 'n'},
		{"late", 1, NULL, 'a'},	 {"drop", 1, NULL, 'd'},	 {"shrink", 0, NULL, 'r'},
		{"only", 1, NULL, 'o'},	 {"trace", 0, NULL, 't'},   {"list", 0, NULL, 'l'},
		{"digest", 0, NULL, 'D'}, {"app", 1, NULL, 'A'}, {"cpu-minutes", 1, NULL, 'C'},
		{"help", 0, NULL, 'H'},	 {"keep-going", 0, NULL, 'k'}, {NULL, 0, NULL, 0}};
	u64 first = 0, last = 0, seed, done = 0, failed = 0;
	double minutes = 0, cpu_minutes = 0, start = sim_clock(CLOCK_MONOTONIC), cpu, said = 0;
	bool trace = false, list = false, keep = false, fixed = false,
	     shrink = false;
	char *end;
	int c;

	if (getrandom(&first, sizeof(first), 0) != sizeof(first))
		first = (u64)time(NULL);
	first &= 0xffffffffffffULL;
	last = first;
	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 's':
			first = last = strtoull(optarg, NULL, 0);
			fixed = true;
			break;
		case 'S':
			first = strtoull(optarg, &end, 0);
			last = end[0] == '.' && end[1] == '.' ? strtoull(end + 2, NULL, 0) : first;
			fixed = true;
			break;
		case 'm':
			minutes = strtod(optarg, NULL);
			break;
		case 'C':
			cpu_minutes = strtod(optarg, NULL);
			break;
		case 'v':
			force.vms = atoi(optarg);
			break;
		case 'h':
			force.hosts = atoi(optarg);
			break;
		case 'c':
			force.conns = atoi(optarg);
			break;
		case 'b':
			force.bytes = atoi(optarg);
			break;
		case 'M':
			force.weak = !strcmp(optarg, "weak");
			break;
		case 'f':
			force.faults = atoi(optarg);
			break;
		case 'o':
			force.mask = sim_mask(optarg);
			break;
		case 'L':
			force.lies = atoi(optarg);
			break;
		case 'O':
			force.oom = atoi(optarg);
			break;
		case 'a':
			force.late = atoi(optarg);
			break;
		case 'n':
			sim.schedule = strtoull(optarg, NULL, 0);
			break;
		case 'd':
			sim.drop = strtoull(optarg, NULL, 0);
			break;
		case 't':
			trace = true;
			break;
		case 'A':
			for (force.app = 0; force.app < SIM_APPS; force.app++)
				if (!strcmp(optarg, sim_app_name[force.app]))
					break;
			if (force.app == SIM_APPS) {
				fprintf(stderr, "vmcomm-sim: no kind of program is called %s\n", optarg);
				return 2;
			}
			break;
		case 'D':
			digest = true;
			break;
		case 'l':
			list = true;
			break;
		case 'k':
			keep = true;
			break;
		case 'r':
			shrink = true;
			break;
		case 'H':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (force.vms == 1 || force.vms > SIM_VMS_MAX || force.hosts > SIM_HOSTS_MAX ||
	    force.conns > SIM_CONNS_MAX / 2) {
		fprintf(stderr, "vmcomm-sim: 2 to %d VMs, up to %d hosts and %d connections\n",
			SIM_VMS_MAX, SIM_HOSTS_MAX, SIM_CONNS_MAX / 2);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (shrink)
		return sim_shrink(first);
	sim_shrinks = !keep && !trace && !getenv("SIM_NO_SHRINK");
	if (!fixed)
		printf("first seed 0x%llx\n", (unsigned long long)first);
	for (seed = first;; seed++) {
		cpu = sim_clock(CLOCK_PROCESS_CPUTIME_ID) / 60;
		if (cpu_minutes > 0 && cpu >= said + 5) {
			printf("so far, up to seed 0x%llx:\n", (unsigned long long)seed - 1);
			sim_summary(done, start);
			said = cpu;
		}
		if (cpu_minutes > 0 ? cpu >= cpu_minutes :
		    minutes > 0	    ? (sim_clock(CLOCK_MONOTONIC) - start) / 60 >= minutes :
				      seed > last)
			break;
		if (list) {
			sim.seed = sim.rng = seed;
			sim_profile_make();
			sim_profile_print();
			continue;
		}
		if (keep) {
			pid_t pid = fork();
			int status;

			if (!pid) {
				sim_one(seed, trace, -1);
				fflush(stdout);
				_exit(0);
			}
			if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
				failed++;
		} else {
			sim_one(seed, trace, -1);
		}
		done++;
	}
	if (!list && !keep)
		sim_summary(done, start);
	if (keep)
		printf("%llu of %llu seeds failed\n", (unsigned long long)failed,
		       (unsigned long long)done);
	return failed ? 1 : 0;
}
