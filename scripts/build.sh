#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Build everything: user space with meson, the module with kbuild.
#
#	scripts/build.sh		both; the module for the kernel that guests boot
#	scripts/build.sh user [NAME [MESON OPTION...]]
#					user space only; with a NAME into $BUILD-NAME
#	scripts/build.sh module [RELEASE]
#			against /lib/modules/RELEASE/build, or $VMCOMM_KDIR
#	scripts/build.sh checked [RELEASE]
#			the module that checks each access to shared memory, for tests
#
# The module's sources are copied to $BUILD/module/RELEASE, so that no object lies among them.

. "$(dirname "$0")/lib.sh"

# Keep quiet unless it fails. Functions called by it cannot rely on "set -e".
quietly() {
	local log

	log=$(mktemp)
	if ! "$@" >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

build_user() {
	local dir=$BUILD${1:+-$1}

	shift || true
	if [ ! -e "$dir/build.ninja" ]; then
		quietly meson setup "$dir" "$ROOT" "$@" || return
	fi
	quietly ninja -C "$dir"
}

# copy_module_sources DIRECTORY: what kbuild needs, without touching what did not change.
copy_module_sources() {
	local room

	for room in guest/linux libvmcomm; do
		mkdir -p "$1/$room" || return
		# Files that are not on the list (objects) are neither copied nor deleted.
		rsync -rtc --delete --include='*/' --include='*.[chS]' --include=Kbuild \
			--include=Makefile --exclude='*' "$ROOT/$room/" "$1/$room/" || return
	done
}

# build_module RELEASE KIND MAKE-ARGUMENT...
build_module() {
	local dir headers=${VMCOMM_KDIR:-/lib/modules/$1/build}

	dir=$(module_dir "$1" "$2")
	[ -e "$headers/Makefile" ] || die "no kernel headers for $1: install linux-headers-$1"
	copy_module_sources "${dir%/guest/linux}" || return
	shift 2
	make -C "$headers" M="$dir" -j"$(nproc)" -s "$@" modules
}

case ${1:-all} in
all)
	build_user ""
	quietly build_module "$(guest_kernel)" module
	;;
user)
	shift
	build_user "$@"
	;;
module)
	release=${2:-$(guest_kernel)}
	quietly build_module "$release" module
	echo "$(module_dir "$release")/vmcomm.ko"
	;;
checked)
	release=${2:-$(guest_kernel)}
	quietly build_module "$release" checked VMCOMM_CHECK_ACCESS=1
	echo "$(module_dir "$release" checked)/vmcomm.ko"
	;;
sparse)
	# Used by the core suite: sparse over every file, its words on standard error.
	release=${2:-$(guest_kernel)}
	build_module "$release" sparse C=2 CF=-D__CHECK_ENDIAN__
	;;
*)
	die "unknown target '$1' (user, module, checked, sparse)"
	;;
esac
