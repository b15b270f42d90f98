# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Common parts of the scripts; sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where everything is built; the sanitizer builds go beside it, as $BUILD-NAME.
BUILD=${VMCOMM_BUILD:-$ROOT/build}
export VMCOMM_BUILD=$BUILD
LOGS=

say() {
	printf '# %s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# as_root COMMAND...: run it as root, by sudo if need be.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root for: $*"
	fi
}

# vmlab ARGUMENTS...: the guests' command line tool.
vmlab() {
	"$ROOT/tests/lab/vmlab" "$@"
}

# guest_kernel: release of the kernel that guests boot ($VMLAB_KERNEL chooses another).
guest_kernel() {
	vmlab --print-kernel ${VMLAB_KERNEL:+--kernel "$VMLAB_KERNEL"}
}

# module_dir RELEASE [KIND]: where the module is built for a kernel.
module_dir() {
	printf '%s/%s/%s/guest/linux\n' "$BUILD" "${2:-module}" "$1"
}

# logs_open NAME: make a directory for logs, $LOGS: VMCOMM_LOG_DIR or a temporary one.
logs_open() {
	if [ -n "${VMCOMM_LOG_DIR:-}" ]; then
		LOGS=$VMCOMM_LOG_DIR
		mkdir -p "$LOGS"
	else
		LOGS=$(mktemp -d "${TMPDIR:-/tmp}/$1-XXXXXX")
	fi
}

# logs_drop: after a success; a directory that was asked for is kept.
logs_drop() {
	[ -n "${VMCOMM_LOG_DIR:-}" ] || rm -rf "$LOGS"
}
