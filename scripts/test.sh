#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what is missing, build, run test suites.
#
#	scripts/test.sh [--full] [--serial] [SUITE...]	without names: all, in their short form
#	scripts/test.sh --list
#
# Suites without guests run beside those with guests, at a lower priority, but for core, whose tests
# of daemons do not like that; --serial: one at a time.
# The last line is "N passed, N failed, N skipped". docs/testing.md says what a suite is.

. "$(dirname "$0")/lib.sh"

# Every suite there may be, in the order in which they run: its name, its lane (alone; with others
# that boot no guests; with those that do), what it is about. One is live when tests/suites/NAME is
# there and executable.
SUITES='
core		alone	unit tests, also with sanitizers; static analysis; the module builds everywhere
local		host	the local backend between processes, also with sanitizers
model		host	exhaustive models of the shared-memory protocols
sim		host	deterministic simulation of the core
fuzz		host	readers of foreign data: QEMU, other daemons, guests, users, libvirt
mutations	host	deliberate bugs, all of which must be found
coverage	host	how much of the core unit tests and simulator reach
packages	host	Debian packages: built, unpacked, run; the module by DKMS
lab		guest	the guest test harness itself
host		guest	vmcommd and vmcommctl with real guests: admission, hotplug, death, restarts
guest		guest	the module in two guests: transports, life and death of VMs
semantics	guest	socket behaviour, plain TCP against the ring
programs	guest	unmodified programs, module off and on
loop		guest	both ends in one guest: test suites of other projects
hostile		guest	malicious neighbours
migration	guest	live migration between two hosts
libvirt		guest	the same through libvirt
xen		guest	Xen domains
debug-kernel	guest	guest suites on kernels with KASAN and friends
'

# live_suites: name, lane and text of each, tabs in between.
live_suites() {
	local name lane text

	while read -r name lane text; do
		if [ -n "$name" ] && [ -x "$ROOT/tests/suites/$name" ]; then
			printf '%s\t%s\t%s\n' "$name" "$lane" "$text"
		fi
	done <<<"$SUITES"
}

# in_lane LANE: which of the suites asked for are in it.
in_lane() {
	local name lane text

	while IFS=$'\t' read -r name lane text; do
		if [ "$lane" = "$1" ] && [[ " ${names[*]} " == *" $name "* ]]; then
			echo "$name"
		fi
	done < <(live_suites)
}

# excerpt LOG: print what says why something failed, as briefly as may be: a long output may be cut.
excerpt() {
	grep -E '^# .*(flaky: |Error|Exception|FAIL: |ERROR: |not ok |Assertion|timed out)' "$1" | cut -c 1-400 |
		tail -n 10 || true
}

# run_suite NAME WHERE: run it; what it prints in the foreground is shown at once, in the background
# when it has ended. Its result is in files, as it may run in a subshell.
run_suite() {
	local name=$1 where=$2 log=$LOGS/$1.log begin=$SECONDS status=0
	# The limit is for a suite that hangs; none comes near it. TERM lets a lab clean up.
	local command=(timeout -k 60 "${limit}m" "$ROOT/tests/suites/$name" ${full:+--full})

	say "suite $name"
	if [ "$where" = foreground ]; then
		VMCOMM_LOG_DIR=$LOGS/$name "${command[@]}" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
	else
		VMCOMM_LOG_DIR=$LOGS/$name nice -n 10 "${command[@]}" >"$log" 2>&1 &
		trap 'kill "$!" 2>/dev/null; exit 143' TERM
		wait "$!" || status=$?
		# Line by line, so that lines of two suites do not mix.
		sed -u '' "$log"
	fi
	echo "$status $((SECONDS - begin))" >"$LOGS/$name.end"
	say "suite $name: $(count_suite "$name"), $((SECONDS - begin)) s"
}

# count_suite NAME: print its numbers; a suite that says nothing has failed.
count_suite() {
	local name=$1 log=$LOGS/$1.log status seconds ok notok skip

	if ! read -r status seconds 2>/dev/null <"$LOGS/$name.end"; then
		status=interrupted seconds=0
	fi
	ok=$(grep -c '^ok - ' "$log") || true
	notok=$(grep -c '^not ok - ' "$log") || true
	skip=$(grep -c '^skip - ' "$log") || true
	if [ "$status" != 0 ] && [ "$notok" -eq 0 ]; then
		echo "not ok - $name: ended with status $status" | tee -a "$log" >&2
		notok=1
	elif [ $((ok + notok + skip)) -eq 0 ]; then
		echo "not ok - $name: ran nothing" | tee -a "$log" >&2
		notok=1
	fi
	echo "$ok passed, $notok failed, $skip skipped"
}

full='' serial='' names=()
for word in "$@"; do
	case $word in
	--list)
		live_suites | awk -F '\t' '{ printf "%-14s%s\n", $1, $3 }'
		exit 0
		;;
	--full)
		full=1
		;;
	--serial)
		serial=1
		;;
	-*)
		die "unknown option '$word' (--list, --full, --serial)"
		;;
	*)
		[ -x "$ROOT/tests/suites/$word" ] || die "no suite '$word' (see --list)"
		names+=("$word")
		;;
	esac
done
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(live_suites | cut -f 1)
limit=${full:+300}
limit=${limit:-45}
mapfile -t alone < <(in_lane alone)
mapfile -t on_host < <(in_lane host)
mapfile -t in_guests < <(in_lane guest)

groups=(build test check)
[[ " ${names[*]} " != *" packages "* ]] || groups+=(package)
[[ " ${names[*]} " != *" debug-kernel "* ]] || groups+=(debug)
"$ROOT/scripts/deps.sh" "${groups[@]}"
logs_open vmcomm-test
failed=0

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

# lane WHERE NAME...: one suite after the other.
lane() {
	local where=$1 name

	shift
	for name in "$@"; do
		run_suite "$name" "$where"
	done
}

others=()
trap '[ ${#others[@]} -eq 0 ] || kill "${others[@]}" 2>/dev/null || true' EXIT
# Takes long, and only when it is not in the cache; the suite that needs it runs last and waits.
if [[ " ${names[*]} " == *" debug-kernel "* ]]; then
	"$ROOT/tests/debug-kernel/build" kasan >"$LOGS/build-kasan.log" 2>&1 &
	others+=($!)
fi

if [ -n "$serial" ] || [ ${#on_host[@]} -eq 0 ] || [ ${#in_guests[@]} -eq 0 ]; then
	lane foreground "${alone[@]}" "${on_host[@]}" "${in_guests[@]}"
else
	lane foreground "${alone[@]}"
	lane background "${on_host[@]}" &
	others+=($!)
	lane foreground "${in_guests[@]}"
	wait || true
fi

passed=0 skipped=0
say "wall time"
for name in "${alone[@]}" "${on_host[@]}" "${in_guests[@]}"; do
	read -r ok _ notok _ skip _ < <(count_suite "$name" 2>/dev/null)
	passed=$((passed + ok)) failed=$((failed + notok)) skipped=$((skipped + skip))
	read -r _ seconds <"$LOGS/$name.end" || seconds=0
	printf '#   %-14s%5d s\n' "$name" "$seconds"
done
for name in "${alone[@]}" "${on_host[@]}" "${in_guests[@]}"; do
	if grep -qE '^not ok - |^# .*flaky: ' "$LOGS/$name.log" 2>/dev/null; then
		say "what may say why ($name)"
		excerpt "$LOGS/$name.log"
	fi
done
if [ "$failed" -gt 0 ]; then
	grep -H '^not ok - ' "$LOGS"/*.log 2>/dev/null | sed "s|^$LOGS/|# |" || true
	say "logs are in $LOGS"
else
	logs_drop
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
