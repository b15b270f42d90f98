# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with Xen: a lab guest whose kernel is dom0's."""

import re
from pathlib import Path

from lab import accel, initramfs, kernel as kernels, paths, qemu
from lab.errors import LabError
from lab.guest import Guest

from . import image, packages
from .domain import Domain

_SETUP = Path(__file__).parent / "guest_side" / "dom0-setup"
# Without hardware help these are the models that boot (EPYC crashes dom0); npt: for PVH domUs.
_CPU = "qemu64,+npt"
# More virtual CPUs make dom0 several times slower under TCG.
_XEN_WORDS = "console=com1 com1=115200,8n1 noreboot loglvl=warning dom0_mem={0}M,max:{0}M dom0_max_vcpus=1"
_DOM0_WORDS = ("console=hvc0 quiet loglevel=5 panic=-1 cryptomgr.notests watchdog_thresh=30 "
               "rcupdate.rcu_cpu_stall_timeout=60 log_buf_len=1M")


def is_zombie(name, state):
    return name == "(null)" or "d" in state


class XenHost(Guest):
    """Xen and its dom0, booted by QEMU. run() and the like are dom0's.

    memory   MiB of the whole machine; dom0 takes `dom0` of them
    words    more words for Xen's command line ("flask=enforcing", "xsm=silo" ...)
    domains  the domUs that were made
    """

    def __init__(self, lab, name="xen", *, net=None, memory=1408, dom0=512, words=""):
        super().__init__(lab, name, kernels.find(), net,
                         qemu.Machine(smp=2, memory=memory, board="i440fx"))
        self.domains = []
        self._dom0 = dom0
        self._xen_words = words
        lab.guests_made.append(self)

    def command_line(self, files, nic=None):
        words = " ".join([_DOM0_WORDS, *self._words])
        args = qemu.command_line(
            self.name, self.machine, ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", _CPU]
            if self.lab.accel == "tcg" else accel.arguments(self.lab.accel),
            packages.hypervisor(), initramfs.build(self.kernel), files, self._nic)
        # Multiboot: Xen is the kernel, dom0's kernel and initramfs are its modules.
        modules = f"{self.kernel.boot_image()} {words},{initramfs.build(self.kernel)}"
        for option, value in (("-initrd", modules),
                              ("-append", f"{_XEN_WORDS.format(self._dom0)} {self._xen_words}")):
            args[args.index(option) + 1] = value
        return args

    def wait_ready(self, timeout=180):
        """Wait until xl can make domains."""
        super().wait_ready(timeout)
        self.run([str(_SETUP), str(packages.root()), self.ip4 or ""], timeout=timeout)
        return self

    def domain(self, name, **options):
        """A new domU, started; options as for Domain."""
        return self.start(Domain(self, name, **options))[0]

    def domains_new(self, number, **options):
        """NUMBER domUs u1, u2, ... booted in parallel."""
        return self.start(*[Domain(self, f"u{i + 1}", **options) for i in range(number)])

    def start(self, *domains, timeout=400):
        """Create DOMAINS (made as Domain(host, name, ...)) one after the other, then let them boot all
        at once: domains that boot already starve the toolstack of dom0."""
        for domain in domains:
            domain.create()
        for domain in domains:
            if not domain.starter:
                self.run(f"xl unpause {domain.name}")
        return [domain.wait_ready(timeout) for domain in domains]

    def adopt(self, domain):
        """Called by Domain: number it."""
        self.domains.append(domain)
        return len(self.domains)

    def kernel_image(self):
        """The ELF file of the domUs' kernel, as dom0 sees it."""
        return self.kernel.boot_image()

    def initramfs(self, programs, modules=()):
        return image.build(self.kernel, programs, modules)

    # -- what the hypervisor holds ------------------------------------------------------------------

    def xl_domains(self):
        """Names of all domains but dom0 -> (domain id, state letters), by one `xl list`."""
        rows = [line.split() for line in self.sh("xl list").splitlines()[1:]]
        return {row[0]: (int(row[1]), row[4]) for row in rows if row[0] != "Domain-0"}

    def xl_list(self):
        """Names of all domains but dom0 -> state letters of `xl list`."""
        return {name: state for name, (_, state) in self.xl_domains().items()}

    def grants(self):
        """Grants that somebody has mapped now: {granting domid: [(reference, mapping domid), ...]}.

        From Xen's debug key "g", which lists each active entry of each domain's grant table.
        """
        self.run("xl dmesg -c >/dev/null; xl debug-keys g")
        text = self.sh("xl dmesg")
        if "gnttab_usage_print_all ] done" not in text:
            raise LabError(f"no answer to xl debug-keys g: {text[-500:]}")
        found, domid = {}, None
        for line in text.splitlines():
            head = re.search(r"grant-table for remote d(\d+)", line)
            if head:
                domid = int(head.group(1))
                found[domid] = []
            entry = re.search(r"\[(0x[0-9a-f]+)\]\s+(\d+) 0x", line)
            if entry and domid is not None:
                found[domid].append((int(entry.group(1), 16), int(entry.group(2))))
        return found

    def event_channels(self, domid):
        """Number of event channels of a domain."""
        return len(self.sh(f"lsevtchn {domid}").splitlines())

    def zombies(self):
        """Domains that are dead but whose memory somebody still maps."""
        return [name for name, state in self.xl_list().items() if is_zombie(name, state)]

    def copy_module(self, domain):
        """Put vmcomm.ko into a domU; return its path there."""
        domain.put("/vmcomm.ko", paths.module(self.kernel).read_bytes())
        return "/vmcomm.ko"
