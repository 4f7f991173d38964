# Completion of millrace-bench for bash.
_millrace_bench()
{
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}

	COMPREPLY=()
	if [[ $COMP_CWORD == 1 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$1" --help 2>/dev/null | sed -n 's/^\(Usage:\)\? *millrace-bench \([a-z]*\) .*/\2/p')" -- "$current")
		return
	fi
	case $before in
	--json | --html | --state)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--rw)
		mapfile -t COMPREPLY < <(compgen -W "$(echo {,rand,zipf}{read,write,rw})" -- "$current")
		return
		;;
	--replies)
		mapfile -t COMPREPLY < <(compgen -W 'auto simple structured extended' -- "$current")
		return
		;;
	esac
	if [[ $command == compare ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
	fi
	# The program knows its options best.
	mapfile -t COMPREPLY < <(compgen -W "$("$1" "$command" --help 2>/dev/null | grep -o -e '^ *--[a-z0-9-]*' | sort -u)" -- "$current")
}
complete -F _millrace_bench millrace-bench
