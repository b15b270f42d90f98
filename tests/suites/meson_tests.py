# SPDX-License-Identifier: GPL-2.0-or-later
"""Run meson's tests as part of a suite, one result per Check test case.

A test belongs to a suite by its `suite:` keyword in meson.build; without one, to `core`.
"""

import contextlib
import json
import os
import re
import subprocess

from lab import paths

_BUILD = str(paths.BUILD)
_BUILD_SCRIPT = str(paths.ROOT / "scripts" / "build.sh")

# meson options and environment of a run with a sanitizer; a report ends the test.
SANITIZERS = {
    "asan": (["-Db_sanitize=address,undefined"],
             {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:strict_string_checks=1",
              "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}),
    "tsan": (["-Db_sanitize=thread"], {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}),
}


def run(suite, name, sanitizer=None, others=("local",)):
    """Run the meson tests of suite NAME and report each to SUITE (a lab.Suite).

    sanitizer   None, "asan" (with UBSan) or "tsan": built in a directory of its own
    others      for "core": suites whose tests are left out
    """
    directory, env, prefix = _BUILD, {}, name
    command = ["meson", "test", "--no-rebuild", "--num-processes", "2", "--print-errorlogs",
               "--logbase", f"suite-{name}"]
    if sanitizer:
        options, env = SANITIZERS[sanitizer]
        directory, prefix = f"{_BUILD}-{sanitizer}", f"{name} {sanitizer}"
        built = subprocess.run([_BUILD_SCRIPT, "user", sanitizer, *options],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if built.returncode != 0:
            suite.note(built.stdout[-4000:])
            suite.result(f"{prefix}: build", False)
            return
        # Sanitizers slow down everything; TSan also wants addresses where it expects them.
        command += ["--timeout-multiplier", "10"]
        if sanitizer == "tsan":
            command = ["setarch", "-R", *command]
    for word in others if name == "core" else ():
        command += ["--no-suite", word]
    if name != "core":
        command += ["--suite", name]
    # Check writes each case as a TAP line to standard output.
    env = os.environ | env | {"CK_TAP_LOG_FILE_NAME": "-"}
    log = os.path.join(directory, "meson-logs", f"suite-{name}.json")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)
    done = subprocess.run([*command, "-C", directory], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        suite.note(done.stdout[-6000:])
    count = 0
    if os.path.exists(log):
        with open(log, encoding="utf-8") as f:
            count = sum(_report(suite, prefix, json.loads(line)) for line in f)
    if count == 0:
        suite.result(f"{prefix}: meson ran no test", False)


def _report(suite, prefix, test):
    """Report one meson test; returns the number of results."""
    name = test["name"].split(" / ")[-1]
    cases = re.findall(r"^(ok|not ok) \d+ - (.*)$", test.get("stdout") or "", re.M)
    if test["result"] == "SKIP":
        suite.skip(f"{prefix}: {name}", (test.get("stdout") or "exit status 77").strip()[-200:])
        return 1
    passed = test["result"] in ("OK", "EXPECTEDFAIL")
    for line in (test.get("stdout") or "").splitlines():
        if line.startswith("flaky: "):
            suite.note(f"{name} {line}")
    for verdict, case in cases:
        # Check says "file.c:case:test: Passed".
        label = ":".join(case.split(":")[1:3]) or case
        suite.result(f"{prefix}: {name}: {label}", verdict == "ok")
    if not cases or (not passed and all(verdict == "ok" for verdict, _ in cases)):
        suite.result(f"{prefix}: {name}{'' if passed else ' (' + test['result'] + ')'}", passed)
        return len(cases) + 1
    return len(cases)
