# SPDX-License-Identifier: GPL-2.0-or-later
"""CPython's own tests in a guest, and what became of each."""

import re

from lab import LabError

# "test_x (test.test_socket.Class.test_x) ... ok", the result perhaps after other output
TEST = re.compile(r"^(test\w*) \(([\w.]+)\)")
RESULT = re.compile(r"(?:\.\.\. |^)(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$")


def parse(text):
    """Result of each test by its name in the output of `python3 -m test -v`."""
    results, name = {}, None
    for line in text.splitlines():
        m = TEST.match(line)
        if m:
            name = m.group(2) if m.group(2).endswith(m.group(1)) else f"{m.group(2)}.{m.group(1)}"
            # One that failed is named again, with its traceback.
            results.setdefault(name, "no result")
        m = RESULT.search(line)
        if m and name:
            if results[name] == "no result":
                results[name] = m.group(1)
            name = None
    return results


def run(guest, test, seconds=3600):
    """Run one of CPython's test modules; {test: result}."""
    # As in Debian's own package tests: resources that need the outside world are not there.
    r = guest.run(f"cd /tmp && LC_ALL=C.UTF-8 timeout {seconds} "
                  f"python3.11 -m test -v -u network,-urlfetch --timeout {seconds // 2} {test} 2>&1",
                  check=False, timeout=seconds + 60)
    if "result: " not in r.stdout.lower():
        raise LabError(f"{test} was not over after {seconds} s:\n{r.stdout[-3000:]}")
    return parse(r.stdout)
