# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of a suite: one line per test on standard output, as scripts/test.sh counts them.

	ok - name
	not ok - name
	skip - name # reason

Everything else a suite prints should begin with "# ".
"""

import sys
import time
import traceback

from .errors import LabError


class Skip(Exception):
    """Raised in a test that cannot run here; the text says why."""


OPTIONS = "--full", "--kasan"  # the second one: suite hostile


def _check_options(words):
    for word in words:
        if word in ("-h", "--help"):
            print(f"usage: {sys.argv[0]} [--full] [NAME...]\n\n"
                  "Run this suite's tests, or those whose names contain a NAME; --full: its long form.")
            sys.exit(0)
        if word.startswith("-") and word not in OPTIONS:
            print(f"{sys.argv[0]}: unknown option '{word}' (--full, --help)", file=sys.stderr)
            sys.exit(2)


class Suite:
    """Runs tests and prints their results.

    lab     if given, the kernel logs of all its guests are checked after each test, so that a
            complaint fails the test that caused it
    full    whether the long form was asked for (--full)
    only    names (or parts of names) from the command line; others are left out
    """

    def __init__(self, lab=None, arguments=None):
        words = sys.argv[1:] if arguments is None else arguments
        if arguments is None:
            _check_options(words)
        self.lab = lab
        self.full = "--full" in words
        self.only = [w for w in words if not w.startswith("-")]
        self.failed = 0
        self.ran = 0
        self._positions = {}

    def test(self, function):
        """Decorator that runs FUNCTION at once as a test named after it."""
        self.run(function.__name__.removeprefix("test_"), function)
        return function

    def run(self, name, function, *args):
        """Run function(*args) as test NAME. Returns whether it passed."""
        if self.only and not any(part in name for part in self.only):
            return True
        self.ran += 1
        begin = time.monotonic()
        try:
            function(*args)
            self._check_kernels()
        except Skip as reason:
            self.skip(name, str(reason))
            return True
        except Exception as e:  # a test may fail with anything
            print_lines(traceback.format_exc() if not isinstance(e, (LabError, AssertionError))
                        else f"{type(e).__name__}: {e}\n{_where(e)}")
            self._mark_kernels()
            return self.result(name, False, begin)
        return self.result(name, True, begin)

    def result(self, name, passed, begin=None):
        """Print the line of a test that was judged elsewhere."""
        took = f" ({time.monotonic() - begin:.1f} s)" if begin else ""
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} - {name}{took}", flush=True)
        return passed

    def skip(self, name, reason):
        """Print the line of a test that cannot run, with the reason."""
        print(f"skip - {name} # {reason}", flush=True)

    def note(self, text):
        """Print text that is no result."""
        print_lines(text)

    def exit_status(self):
        """For sys.exit: 0 if nothing failed and something ran."""
        if not self.ran:
            print_lines("no test ran")
        return 1 if self.failed or not self.ran else 0

    def _check_kernels(self):
        if self.lab:
            for guest in self.lab.guests_made:
                guest.check_kernel(since=self._positions.get(guest, 0))
        self._mark_kernels()

    def _mark_kernels(self):
        if self.lab:
            self._positions = {g: len(g.log.lines) for g in self.lab.guests_made}


def print_lines(text):
    """Print TEXT as comment lines."""
    for line in text.rstrip("\n").split("\n"):
        print(f"# {line}", flush=True)


def _where(error):
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"  at {f.filename}:{f.lineno}: {f.line}" for f in frames[-4:])
