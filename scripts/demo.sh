#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what is missing, build, and show two guests talking through shared memory.
#
#	scripts/demo.sh [--json FILE] [--rounds N] [--seconds S]

. "$(dirname "$0")/lib.sh"

case ${1:-} in
-h | --help)
	exec "$ROOT/bench/demo" --help
	;;
esac
"$ROOT/scripts/deps.sh" build test
"$ROOT/scripts/build.sh"
as_root "$ROOT/bench/demo" "$@"
