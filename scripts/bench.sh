#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what is missing, build, run a benchmark.
#
#	scripts/bench.sh native|guests|migrate|count [--json FILE] [OPTION...]

. "$(dirname "$0")/lib.sh"

usage() {
	die "usage: scripts/bench.sh native|guests|migrate|count [--json FILE]"
}

[ $# -gt 0 ] || usage
case $1 in
native | guests | migrate | count)
	bench=$1
	shift
	;;
*)
	usage
	;;
esac
[ -x "$ROOT/bench/$bench" ] || die "there is no benchmark '$bench' yet (bench/$bench)"

groups=(build)
[ "$bench" = native ] || groups+=(test)
"$ROOT/scripts/deps.sh" "${groups[@]}"
"$ROOT/scripts/build.sh"
exec "$ROOT/bench/$bench" "$@"
