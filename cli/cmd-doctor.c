// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cmd-doctor.c - vmcommctl doctor: is this machine able to use vmcomm, and what to do if not
 *
 * Works without vmcommd: it looks at the local system, as host and, where there is a device or the
 * module, as guest.
 */
#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli.h"
#include "probe.h"

enum verdict { GOOD, NOTE, BAD };

static const char *const verdicts[] = {"ok", "note", "FAIL"};

struct doctor {
	const struct cli *o;
	json_t *findings;
	unsigned int bad;
};

static void finding(struct doctor *d, enum verdict v, const char *check, const char *advice,
		    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void finding(struct doctor *d, enum verdict v, const char *check, const char *advice,
		    const char *fmt, ...)
{
	static const char *const names[] = {"ok", "note", "fail"};
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	d->bad += v == BAD;
	json_array_append_new(d->findings,
			      json_pack("{s:s, s:s, s:s, s:s}", "check", check, "verdict", names[v],
					"finding", text, "advice", advice ? advice : ""));
}

static bool read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, (int)size, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = 0;
	return ok;
}

/* -- as guest -- */

/* Length of memory region @bar in a "resource" file of sysfs. */
static unsigned long long bar_length(const char *dir, unsigned int bar)
{
	unsigned long long start = 0, last = 0;
	char path[300], line[128];
	unsigned int i;
	FILE *f;

	snprintf(path, sizeof(path), "%s/resource", dir);
	f = fopen(path, "re");
	for (i = 0; f && i <= bar; i++)
		if (!fgets(line, sizeof(line), f) ||
		    sscanf(line, "%llx %llx", &start, &last) != 2)
			start = last = 0;
	if (f)
		fclose(f);
	return last > start ? last - start + 1 : 0;
}

static unsigned int guest_devices(struct doctor *d)
{
	char path[300], text[64], driver[300];
	unsigned int found = 0;
	unsigned long long len;
	glob_t g;
	size_t i;
	ssize_t n;

	if (glob("/sys/bus/pci/devices/*", 0, NULL, &g))
		return 0;
	for (i = 0; i < g.gl_pathc; i++) {
		snprintf(path, sizeof(path), "%s/vendor", g.gl_pathv[i]);
		if (!read_line(path, text, sizeof(text)) || strcmp(text, "0x1af4"))
			continue;
		snprintf(path, sizeof(path), "%s/device", g.gl_pathv[i]);
		if (!read_line(path, text, sizeof(text)) || strcmp(text, "0x1110"))
			continue;
		found++;
		len = bar_length(g.gl_pathv[i], 2);
		if (!len)
			finding(d, BAD, "window", "give its PCIe root port a larger window: "
				"pref64-reserve=1G in QEMU, on the command line of the VM",
				"device %s: its shared memory did not fit into the root port's window",
				strrchr(g.gl_pathv[i], '/') + 1);
		else
			finding(d, GOOD, "window", NULL, "device %s: %llu MiB of shared memory",
				strrchr(g.gl_pathv[i], '/') + 1, len >> 20);
		snprintf(path, sizeof(path), "%s/driver", g.gl_pathv[i]);
		n = readlink(path, driver, sizeof(driver) - 1);
		driver[n > 0 ? n : 0] = 0;
		if (n <= 0)
			finding(d, BAD, "driver", "modprobe vmcomm, then look at dmesg",
				"no driver is bound to the device");
		else
			finding(d, strstr(driver, "vmcomm") ? GOOD : BAD, "driver",
				strstr(driver, "vmcomm") ? NULL : "unbind the other driver",
				"bound to %s", strrchr(driver, '/') + 1);
	}
	globfree(&g);
	return found;
}

static void guest_kernel(struct doctor *d)
{
	static const char *const needed[] = {"CONFIG_TRACEPOINTS", "CONFIG_PCI_MSI",
					     "CONFIG_MODULES"};
	bool have[3] = {false};
	char path[300], line[256];
	struct utsname u;
	unsigned int i;
	FILE *f;

	uname(&u);
	snprintf(path, sizeof(path), "/boot/config-%s", u.release);
	f = fopen(path, "re");
	if (!f) {
		finding(d, NOTE, "kernel", "look at CONFIG_TRACEPOINTS and CONFIG_PCI_MSI yourself",
			"%s: its configuration is not in %s", u.release, path);
		return;
	}
	while (fgets(line, sizeof(line), f))
		for (i = 0; i < 3; i++)
			if (!strncmp(line, needed[i], strlen(needed[i])) &&
			    !strncmp(line + strlen(needed[i]), "=y", 2))
				have[i] = true;
	fclose(f);
	for (i = 0; i < 3; i++)
		if (!have[i])
			finding(d, BAD, "kernel", "use a kernel that has it, such as Debian's",
				"%s lacks %s", u.release, needed[i]);
	if (have[0] && have[1] && have[2])
		finding(d, GOOD, "kernel", NULL, "%s has what the module needs", u.release);
}

static bool guest(struct doctor *d)
{
	bool module = !access("/sys/module/vmcomm", F_OK);
	unsigned int devices;
	char text[16];

	devices = guest_devices(d);
	if (!devices && !module)
		return false;
	if (!devices)
		finding(d, NOTE, "device", "on the host: vmcommctl vm attach NAME",
			"this VM has no vmcomm device");
	if (!module)
		finding(d, BAD, "module", "modprobe vmcomm (package vmcomm-dkms)",
			"the module is not loaded");
	else if (read_line("/sys/module/vmcomm/parameters/enabled", text, sizeof(text)) &&
		 (text[0] == 'N' || text[0] == '0'))
		finding(d, NOTE, "module",
			"echo 1 > /sys/module/vmcomm/parameters/enabled to use shared memory",
			"loaded, but switched off");
	else
		finding(d, GOOD, "module", NULL, "loaded");
	guest_kernel(d);
	return true;
}

/* -- as host -- */

/* As long as KVM takes on a slow machine, several times. */
#define KVM_BOOT_SECONDS 10

static void host_kvm(struct doctor *d)
{
	char text[400];
	int err;

	if (access("/dev/kvm", F_OK)) {
		finding(d, NOTE, "kvm", "switch virtualisation on in the firmware, modprobe kvm_intel or "
			"kvm_amd", "no /dev/kvm: VMs run, but emulated and slowly");
		return;
	}
	if (access("/dev/kvm", R_OK | W_OK)) {
		finding(d, NOTE, "kvm", "be root or a member of group kvm", "/dev/kvm: %s",
			strerror(errno));
		return;
	}
	if (isatty(STDERR_FILENO))
		fputs("booting a guest with KVM...\n", stderr);
	err = cli_probe_boot("kvm", KVM_BOOT_SECONDS, text, sizeof(text));
	if (!err)
		finding(d, GOOD, "kvm", NULL, "a guest boots with it (%s)", text);
	else if (err == -ETIMEDOUT || err == -EIO)
		finding(d, NOTE, "kvm", "use -accel tcg, or a host with working virtualisation",
			"/dev/kvm is there, but no guest boots with it: %s", text);
	else
		finding(d, NOTE, "kvm", "boot a guest with -accel kvm yourself",
			"/dev/kvm is there; whether it works is not known: %s", text);
}

static void host_qemu(struct doctor *d)
{
	char line[128] = "";
	FILE *f = popen("qemu-system-x86_64 --version 2>/dev/null", "re");
	int major = 0;

	if (f && fgets(line, sizeof(line), f))
		line[strcspn(line, "\n")] = 0;
	if (f)
		pclose(f);
	if (!line[0]) {
		finding(d, NOTE, "qemu", "apt-get install qemu-system-x86",
			"qemu-system-x86_64 is not installed");
		return;
	}
	sscanf(line, "QEMU emulator version %d", &major);
	finding(d, major >= 6 ? GOOD : BAD, "qemu", major >= 6 ? NULL : "use QEMU 6 or newer", "%s",
		line);
	if (system("qemu-system-x86_64 -device ivshmem-doorbell,help >/dev/null 2>&1"))
		finding(d, BAD, "qemu", "use a QEMU that was built with ivshmem",
			"it has no device ivshmem-doorbell");
}

static void daemon_groups(struct doctor *d)
{
	char why[256];
	json_t *last, *g, *slot, *holder;
	size_t i, k;

	if (cli_call_quiet(d->o, "io.vmcomm.GroupList", json_object(), &last, why, sizeof(why)))
		return;
	json_array_foreach (json_object_get(last, "groups"), i, g) {
		const char *name = cli_get_string(g, "name");

		if (json_object_get(g, "problem"))
			finding(d, BAD, "group", "see vmcommctl group show", "%s: %s", name,
				cli_get_string(g, "problem"));
		else if (json_object_get(g, "keeper_pid"))
			finding(d, kill((pid_t)cli_get_number(g, "keeper_pid"), 0) &&
					errno == ESRCH ? BAD : GOOD, "group", NULL,
				"%s: region keeper %lld, %lld members", name,
				cli_get_number(g, "keeper_pid"), cli_get_number(g, "members"));
		else
			finding(d, GOOD, "group", NULL, "%s: no members yet", name);
		json_array_foreach (json_object_get(g, "table"), k, slot) {
			holder = cli_slot_holder(g, slot);
			if (holder)
				finding(d, NOTE, "slot", "if it stays so: vmcommctl group release NAME",
					"%s: slot %lld cannot be used again yet: %s still reads it", name,
					cli_get_number(slot, "slot"), cli_get_string(holder, "vm"));
		}
	}
	json_decref(last);
}

static void daemon_vms(struct doctor *d)
{
	char why[256];
	json_t *last, *vm;
	size_t i;

	if (cli_call_quiet(d->o, "io.vmcomm.VmList", json_object(), &last, why, sizeof(why)))
		return;
	json_array_foreach (json_object_get(last, "vms"), i, vm) {
		const char *name = cli_get_string(vm, "name"), *state = cli_get_string(vm, "state");

		if (!strcmp(state, "refused"))
			finding(d, BAD, "vm", "give its [vm] section the group's key", "%s", name);
		else if (!strcmp(state, "attached"))
			finding(d, BAD, "vm", "in the guest: modprobe vmcomm; vmcommctl doctor",
				"%s has its device, but no module answers", name);
		else if (!strcmp(state, "silent"))
			finding(d, BAD, "vm", "look at the guest: is it paused, or did it crash?",
				"%s: its module stands still", name);
		else if (!strcmp(state, "no-slot"))
			finding(d, BAD, "vm", "vmcommctl group show; more slots, or wait for the "
				"quarantine to end", "%s has no slot", name);
		else
			finding(d, GOOD, "vm", NULL, "%s: %s", name, state);
		if (json_object_get(vm, "problem"))
			finding(d, NOTE, "vm", NULL, "%s: %s", name, cli_get_string(vm, "problem"));
	}
	json_decref(last);
}

/* Domains of libvirt are members. */
static void host_libvirt(struct doctor *d, json_t *info)
{
	static const char local[] = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
	static const char hook[] = "/etc/libvirt/hooks/qemu.d/vmcomm";
	const char *uri = cli_get_string(info, "libvirt_uri");
	char line[256];
	bool rule = false;
	FILE *f;

	if (json_is_true(json_object_get(info, "libvirt_connected")))
		finding(d, GOOD, "libvirt", "for save, managedsave, snapshots with memory and migrations by other "
			"programs: vmcommctl exec VM -- COMMAND", "connected to %s", uri);
	else
		finding(d, BAD, "libvirt", "systemctl start libvirtd; journalctl -u vmcommd",
			"vmcommd has no connection to %s", uri);
	if (access(hook, X_OK))
		finding(d, NOTE, "hook", "link it to vmcomm-libvirt-hook and restart libvirtd", "%s is not "
			"there: a domain with a wrong key starts, and stays on TCP", hook);
	if (!read_line("/sys/module/apparmor/parameters/enabled", line, sizeof(line)) || line[0] != 'Y')
		return;
	f = fopen(local, "re");
	while (f && fgets(line, sizeof(line), f))
		rule |= line[0] != '#' && strstr(line, "vmcomm-qemu");
	if (f)
		fclose(f);
	if (rule)
		finding(d, GOOD, "apparmor", NULL, "QEMU may connect to slots");
	else
		finding(d, NOTE, "apparmor", "add a line to it: include <abstractions/vmcomm-qemu>", "%s does not "
			"let QEMU connect to slots", local);
}

static void host(struct doctor *d, bool is_guest)
{
	char why[512];
	json_t *info;
	int code;

	code = cli_call_quiet(d->o, "io.vmcomm.Info", json_object(), &info, why, sizeof(why));
	if (code && is_guest)
		return; /* a guest needs no vmcommd */
	host_kvm(d);
	host_qemu(d);
	if (code) {
		finding(d, BAD, code == CLI_PERMISSION ? "permissions" : "vmcommd",
			code == CLI_PERMISSION ? "use sudo, or: adduser USER vmcomm" :
						 "systemctl start vmcommd; journalctl -u vmcommd",
			"%s", why);
		return;
	}
	finding(d, GOOD, "vmcommd", NULL, "version %s, backend %s, process %lld",
		cli_get_string(info, "version"), cli_get_string(info, "backend"),
		cli_get_number(info, "pid"));
	if (strcmp(cli_get_string(info, "version"), VMCOMM_VERSION))
		finding(d, NOTE, "vmcommd", "systemctl restart vmcommd (VMs go on)",
			"it runs another version than vmcommctl %s", VMCOMM_VERSION);
	if (json_object_get(info, "libvirt_uri"))
		host_libvirt(d, info);
	json_decref(info);
	daemon_groups(d);
	daemon_vms(d);
}

int cmd_doctor(const struct cli *o)
{
	static const char *const columns[] = {"", "CHECK", "FINDING", "WHAT TO DO", NULL};
	struct doctor d = {.o = o, .findings = json_array()};
	struct cli_table *t;
	json_t *f;
	size_t i;

	host(&d, guest(&d));
	if (o->json) {
		cli_print_json(json_pack("{s:o, s:i}", "findings", d.findings, "failed", (int)d.bad));
		return d.bad ? CLI_FAILED : CLI_OK;
	}
	t = cli_table_new(columns, "----");
	json_array_foreach (d.findings, i, f) {
		const char *v = cli_get_string(f, "verdict");

		cli_table_cell(t, !strcmp(v, "ok") ? verdicts[GOOD] :
				  !strcmp(v, "note") ? verdicts[NOTE] : verdicts[BAD]);
		cli_table_cell(t, cli_get_string(f, "check"));
		cli_table_cell(t, cli_get_string(f, "finding"));
		cli_table_cell(t, cli_get_string(f, "advice"));
	}
	cli_table_print(t);
	json_decref(d.findings);
	return d.bad ? CLI_FAILED : CLI_OK;
}
