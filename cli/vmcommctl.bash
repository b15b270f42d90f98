# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for vmcommctl

_vmcommctl_names()
{
	vmcommctl --json "$1" list 2>/dev/null | sed -n 's/^      "name": "\(.*\)",\{0,1\}$/\1/p'
}

_vmcommctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local words=() w

	for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		[[ $w == -* ]] || words+=("$w")
	done
	case $prev in
	--key-file | --qmp | --socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--group)
		mapfile -t COMPREPLY < <(compgen -W "$(_vmcommctl_names group)" -- "$cur")
		return
		;;
	--vm)
		mapfile -t COMPREPLY < <(compgen -W "$(_vmcommctl_names vm)" -- "$cur")
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		local opts="--json --socket --help --version"
		case "${words[0]} ${words[1]}" in
		"group add") opts+=" --slots --memory --chunk --key-file --exclude-ports --exclude-addresses" ;;
		"vm add") opts+=" --group --key-file --address --uuid --qmp --bus --user --incoming" ;;
		"vm start") opts+=" --group --key-file --address --uuid" ;;
		"migrate "*) opts+=" --bandwidth --timeout --postcopy --cancel" ;;
		"vm remove" | "vm attach") opts+=" --key-file" ;;
		"vm list") opts+=" --group" ;;
		"conn list") opts+=" --group --vm" ;;
		esac
		mapfile -t COMPREPLY < <(compgen -W "$opts" -- "$cur")
		return
	fi
	case "${#words[@]} ${words[0]} ${words[1]}" in
	"0 "*) w="group vm migrate exec conn stats doctor" ;;
	"1 group "*) w="add list show remove release" ;;
	"1 vm "*) w="add remove attach detach start list show path" ;;
	"1 conn "*) w="list" ;;
	"1 stats "* | "1 migrate "* | "1 exec "*) w=$(_vmcommctl_names vm) ;;
	"2 group show" | "2 group remove" | "2 group release") w=$(_vmcommctl_names group) ;;
	"2 vm remove" | "2 vm attach" | "2 vm detach" | "2 vm show" | "2 vm path" | "3 vm path") w=$(_vmcommctl_names vm) ;;
	"2 vm start")
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	*) w= ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$w" -- "$cur")
}

complete -F _vmcommctl vmcommctl
