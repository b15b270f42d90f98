#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what is missing, build, run test suites.
#
#	scripts/test.sh [--full] [SUITE...]	without names: all, in their short form
#	scripts/test.sh --list
#
# The last line is "N passed, N failed, N skipped". docs/testing.md says what a suite is.

. "$(dirname "$0")/lib.sh"

# Every suite there may be, in the order in which they run. One is live when tests/suites/NAME is
# there and executable.
SUITES='
core		unit tests, also with sanitizers; static analysis; the module builds everywhere
local		the local backend between processes, also with sanitizers
model		exhaustive models of the shared-memory protocols
sim		deterministic simulation of the core
mutations	deliberate bugs, all of which must be found
coverage	how much of the core unit tests and simulator reach
packages	Debian packages: built, unpacked, run; the module by DKMS
lab		the guest test harness itself
host		vmcommd and vmcommctl with real guests: admission, hotplug, death, restarts
guest		the module in two guests: transports, life and death of VMs
semantics	socket behaviour, plain TCP against the ring
programs	unmodified programs, module off and on
loop		both ends in one guest: test suites of other projects
hostile		malicious neighbours
migration	live migration between two hosts
libvirt		the same through libvirt
xen		Xen domains
debug-kernel	guest suites on kernels with KASAN and friends
'

suite_names() {
	local name rest

	while read -r name rest; do
		if [ -n "$name" ] && [ -x "$ROOT/tests/suites/$name" ]; then
			echo "$name"
		fi
	done <<<"$SUITES"
}

list() {
	local name rest

	while read -r name rest; do
		if [ -n "$name" ] && [ -x "$ROOT/tests/suites/$name" ]; then
			printf '%-14s%s\n' "$name" "$rest"
		fi
	done <<<"$SUITES"
}

passed=0 failed=0 skipped=0

# run_suite NAME: run it, show and count its lines.
run_suite() {
	local name=$1 log=$LOGS/$1.log begin=$SECONDS status=0 ok notok skip

	say "suite $name"
	# The limit is for a suite that hangs; none comes near it. TERM lets a lab clean up.
	VMCOMM_LOG_DIR=$LOGS/$name timeout -k 60 "${limit}m" \
		"$ROOT/tests/suites/$name" ${full:+--full} 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
	ok=$(grep -c '^ok - ' "$log") || true
	notok=$(grep -c '^not ok - ' "$log") || true
	skip=$(grep -c '^skip - ' "$log") || true
	if [ "$status" -ne 0 ] && [ "$notok" -eq 0 ]; then
		echo "not ok - $name: ended with status $status" | tee -a "$log"
		notok=1
	elif [ $((ok + notok + skip)) -eq 0 ]; then
		echo "not ok - $name: ran nothing" | tee -a "$log"
		notok=1
	fi
	passed=$((passed + ok)) failed=$((failed + notok)) skipped=$((skipped + skip))
	say "suite $name: $ok passed, $notok failed, $skip skipped, $((SECONDS - begin)) s"
	times+=("$(printf '%-14s%5d s' "$name" $((SECONDS - begin)))")
}

full='' names=() times=()
for word in "$@"; do
	case $word in
	--list)
		list
		exit 0
		;;
	--full)
		full=1
		;;
	-*)
		die "unknown option '$word' (--list, --full)"
		;;
	*)
		[ -x "$ROOT/tests/suites/$word" ] || die "no suite '$word' (see --list)"
		names+=("$word")
		;;
	esac
done
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(suite_names)
limit=${full:+300}
limit=${limit:-30}

"$ROOT/scripts/deps.sh" build test check package
logs_open vmcomm-test

# build TARGET: a failure counts, and suites that can do without the result still run.
build() {
	say "building: $1"
	if ! "$ROOT/scripts/build.sh" "$1" 2>&1 | tee "$LOGS/build-$1.log"; then
		echo "not ok - build: $1" | tee -a "$LOGS/build-$1.log"
		failed=$((failed + 1))
	fi
}

build user
build module
for name in "${names[@]}"; do
	run_suite "$name"
done

say "wall time"
printf '#   %s\n' "${times[@]}"
if [ "$failed" -gt 0 ]; then
	grep -H '^not ok - ' "$LOGS"/*.log 2>/dev/null | sed "s|^$LOGS/|# |" || true
	say "logs are in $LOGS"
else
	logs_drop
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
