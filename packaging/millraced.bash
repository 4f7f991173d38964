# Completion of millraced for bash.
_millraced()
{
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	case $before in
	-c | --config)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	-l | --listen)
		mapfile -t COMPREPLY < <(compgen -W '127.0.0.1:10809 [::1]:10809 unix:' -- "$current")
		return
		;;
	--cores)
		mapfile -t COMPREPLY < <(compgen -W auto -- "$current")
		return
		;;
	-e | --export)
		return
		;;
	esac
	# The program knows its options best.
	mapfile -t COMPREPLY < <(compgen -W "$("$1" --help 2>/dev/null | grep -o -e '--[a-z-]*' | sort -u)" -- "$current")
}
complete -F _millraced millraced
