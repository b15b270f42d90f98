# SPDX-License-Identifier: GPL-2.0-or-later
"""vmlab: boot guests and run a command in each, or give an interactive prompt.

	tests/lab/vmlab                          two guests and a prompt
	tests/lab/vmlab --guests 1 -- uname -a   run a command in every guest, print, end
"""

import argparse
import shlex
import sys
import time

from . import accel, kernel as kernels
from .errors import LabError
from .session import Lab

_HELP = """\
  N COMMAND...    run a shell command in guest N (without N: in guest 1)
  *  COMMAND...   in all guests, one after the other
  !plug N SOCKET [VECTORS], !unplug N, !reboot N, !kill N, !log N, !qmp N {hmp command}
  Ctrl-D ends everything."""


def main():
    parser = argparse.ArgumentParser(prog="vmlab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", type=int, default=2)
    parser.add_argument("--kernel", help="6.1 (default), 6.12 or a release")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    parser.add_argument("--board", choices=("q35", "i440fx"), default="q35")
    parser.add_argument("--append", default="", help="words for the kernel command line")
    parser.add_argument("--print-kernel", action="store_true",
                        help="print the release of the kernel that guests boot, and end")
    parser.add_argument("--print-accel", action="store_true", help="print kvm or tcg, and end")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.print_kernel:
        print(kernels.find(options.kernel).release)
        return 0
    if options.print_accel:
        print(accel.choose())
        return 0
    with Lab("vmlab", check=False) as lab:
        begin = time.monotonic()
        net = lab.net()
        guests = lab.guests(options.guests, net=net, kernel=options.kernel, smp=options.smp,
                            memory=options.memory, board=options.board, append=options.append)
        print(f"# {len(guests)} guests up in {time.monotonic() - begin:.1f} s ({lab.accel}, "
              f"{guests[0].kernel.release}), network namespace {net.name}", file=sys.stderr)
        if options.command:
            statuses = [_show(g, shlex.join(options.command)) for g in guests]
            lab.check_kernels()
            return max(statuses)
        _prompt(guests)
    return 0


def _show(guest, command):
    job = guest.spawn(command)
    try:
        result = job.wait(timeout=None)
    except KeyboardInterrupt:
        job.kill()
        result = job.wait()
    for text, stream in ((result.stdout, sys.stdout), (result.stderr, sys.stderr)):
        for line in text.splitlines():
            print(f"{guest.name}: {line}", file=stream, flush=True)
    if result.returncode:
        print(f"{guest.name}: status {result.returncode}", file=sys.stderr)
    return abs(result.returncode)


def _prompt(guests):
    for g in guests:
        print(f"# {g.name}: {g.ip4} {g.ip6} pid {g.qemu.pid} console {g.console}")
    print(_HELP)
    while True:
        try:
            words = input("vmlab> ").strip().split(None, 1)
        except (EOFError, KeyboardInterrupt):
            print()
            return
        try:
            if words:
                _obey(guests, words[0], words[1] if len(words) > 1 else "")
        except (LabError, IndexError, ValueError) as e:
            print(f"error: {e}")


def _obey(guests, first, rest):
    if first.startswith("!"):
        number, _, argument = rest.partition(" ")
        guest = guests[int(number) - 1]
        if first == "!plug":
            path, _, vectors = argument.partition(" ")
            guest.plug(path, vectors=int(vectors or 4))
        elif first == "!unplug":
            guest.unplug()
        elif first == "!reboot":
            guest.reboot()
        elif first == "!kill":
            guest.kill()
        elif first == "!log":
            print(guest.log.text())
        elif first == "!qmp":
            print(guest.qmp.hmp(argument))
        else:
            print(_HELP)
    elif first == "*":
        for guest in guests:
            _show(guest, rest)
    elif first.isdigit():
        _show(guests[int(first) - 1], rest)
    else:
        _show(guests[0], f"{first} {rest}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as e:
        print(f"vmlab: {e}", file=sys.stderr)
        sys.exit(1)
