#!/bin/bash
# tests/install.sh PREFIX SYSCONFDIR: what 'ninja install' and 'uninstall' do, below a scratch directory, and whether what they put
# there is right: units without a warning, manual pages that describe every option, completion.
# 'N passed, N failed' goes to build/test-counts/install too.  Exits 1 if something failed.
set -u
prefix=$1
sysconfdir=$2
counts=build/test-counts/install
passed=0
failed=0
EXPOSURE_MAX=1.5 # of 10, systemd-analyze's

mkdir -p build/test-counts || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
export DESTDIR=$scratch/root
edited=$DESTDIR$sysconfdir/millrace/millrace.conf

# step NAME COMMAND...: counts whether COMMAND succeeds; its output is shown if it does not.
step()
{
	local name=$1
	shift
	if "$@" >"$scratch/output" 2>&1; then
		((passed++))
		echo "ok   $name"
	else
		((failed++))
		echo "FAIL $name"
		sed 's/^/     | /' "$scratch/output"
	fi
}

install_tree()
{
	packaging/install.sh "$1" "$prefix" "$sysconfdir"
}

# As after a tab.  A compiler that succeeds with anything: here it is about directories.
slash_behind_the_prefix_is_nothing()
{
	mkdir "$scratch/configured" && cp configure "$scratch/configured" &&
		"$scratch/configured/configure" --without-tests --prefix=/usr/ CC=true &&
		grep -x 'prefix = /usr' "$scratch/configured/build/config.ninja" &&
		grep -x 'sysconfdir = /etc' "$scratch/configured/build/config.ninja"
}

verify_units()
{
	mkdir "$scratch/units" &&
		sed "s|^ExecStart=[^ ]*|ExecStart=$PWD/build/millraced|" build/packaging/millrace.service \
			>"$scratch/units/millrace.service" &&
		cp packaging/millrace.socket "$scratch/units" || return 1
	local said
	said=$(systemd-analyze verify --man=no "$scratch"/units/millrace.{service,socket} 2>&1) || { echo "$said"; return 1; }
	echo "$said"
	[[ -z $said ]]
}

units_are_tight()
{
	systemd-analyze security --offline=yes --threshold=$(tr -d . <<<$EXPOSURE_MAX) build/packaging/millrace.service
}

# Warnings of groff, and every option that --help tells.
manual_pages_are_whole()
{
	local page said option
	for page in "$DESTDIR$prefix"/share/man/man[158]/*; do
		said=$(groff -man -Tutf8 -ww -z -rHY=0 "$page" 2>&1 | grep -v "can't break line")
		[[ -z $said ]] || { echo "$page: $said"; return 1; }
	done
	for option in $(build/millraced --help | grep -o -e '--[a-z]*' | sort -u); do
		tr -d '\\' <"$DESTDIR$prefix/share/man/man8/millraced.8" | grep -q -e "$option" || { echo "$option is not in millraced(8)"; return 1; }
	done
	for option in $(for command in run verify ramp; do build/millrace-bench $command --help; done | grep -o -e '^  --[a-z0-9-]*' | sort -u); do
		tr -d '\\' <"$DESTDIR$prefix/share/man/man1/millrace-bench.1" | grep -q -e "fB$option" || { echo "$option is not in millrace-bench(1)"; return 1; }
	done
	for option in $(packaging/millrace-import-nbd-server --help | grep -o -e '--[a-z]*' | sort -u); do
		tr -d '\\' <"$DESTDIR$prefix/share/man/man1/millrace-import-nbd-server.1" | grep -q -e "$option" || { echo "$option is not in millrace-import-nbd-server(1)"; return 1; }
	done
	grep -q 'THE SECTION \[export disk\]' "$DESTDIR$prefix/share/man/man5/millrace.conf.5"
}

# Every setting of the example is a setting in the manual page.
manual_has_every_setting()
{
	local key
	for key in $(sed -n 's/^#\?\([a-z0-9-]*\) = .*/\1/p' etc/millrace.conf | sort -u); do
		tr -d '\\' <"$DESTDIR$prefix/share/man/man5/millrace.conf.5" | grep "^fB${key}fR = " >"$scratch/shown" ||
			{ echo "$key is missing"; return 1; }
		! grep -v '(default)$\|(example)$\|default: none)$' "$scratch/shown" || return 1
	done
}

# What millraced(8) lists under FILES.
listed_files_are_there()
{
	local path count=0
	for path in $(sed -n '/^# FILES/,/^# SEE/s/^\*@/@/p' doc/man/millraced.8.scd | tr -d '*' | sed "s|@prefix@|$prefix|; s|@sysconfdir@|$sysconfdir|"); do
		[[ -e $DESTDIR$path ]] || { echo "there is no $path"; return 1; }
		tr -d '\\&' <"$DESTDIR$prefix/share/man/man8/millraced.8" | grep -q -F "fB$path" || { echo "$path is not in millraced(8)"; return 1; }
		((count++))
	done
	((count == 4))
}

completes()
{
	local COMPREPLY COMP_WORDS COMP_CWORD
	source packaging/millraced.bash
	COMP_WORDS=(build/millraced --ch) COMP_CWORD=1
	_millraced build/millraced
	[[ ${COMPREPLY[*]} == --check ]] || { echo "--ch gives '${COMPREPLY[*]}'"; return 1; }
	source packaging/millrace-bench.bash
	COMP_WORDS=(build/millrace-bench v) COMP_CWORD=1
	_millrace_bench build/millrace-bench
	[[ ${COMPREPLY[*]} == verify ]] || { echo "v gives '${COMPREPLY[*]}'"; return 1; }
	COMP_WORDS=(build/millrace-bench ramp --p99) COMP_CWORD=2
	_millrace_bench build/millrace-bench
	[[ ${COMPREPLY[*]} == --p99-max ]] || { echo "--p99 gives '${COMPREPLY[*]}'"; return 1; }
}

conf_is_accepted()
{
	truncate -s 1M "$scratch/image" &&
		printf '[export a]\npath = %s\n' "$scratch/image" >"${edited%/*}/exports.d/a.conf" &&
		"$DESTDIR$prefix/bin/millraced" --config "$edited" --check && rm "${edited%/*}/exports.d/a.conf"
}

edited_file_stays()
{
	echo '# mine' >>"$edited"
	install_tree install && grep -q '^# mine' "$edited" && cmp etc/millrace.conf "$edited.new"
}

uninstall_leaves_only()
{
	mkdir -p "$DESTDIR$prefix/bin" && install_tree uninstall || return 1
	[[ -d $DESTDIR$prefix/bin && ! -e $DESTDIR$prefix/share/millrace && ! -e $DESTDIR$prefix/include/millrace ]] || return 1
	local left
	left=$(cd "$DESTDIR" && find . ! -type d)
	[[ $left == "$1" ]] || { echo "left: $left"; return 1; }
}

step 'a slash behind the prefix is nothing' slash_behind_the_prefix_is_nothing
step 'ninja install puts everything in place' install_tree install
step 'the installed configuration is accepted' conf_is_accepted
if command -v systemd-analyze >/dev/null; then
	step 'the units are accepted without a warning' verify_units
	step "the unit's exposure is at most $EXPOSURE_MAX" units_are_tight
fi
step 'the manual pages have every option and no mistake' manual_pages_are_whole
step 'millrace.conf(5) has every setting, and says which value is the default' manual_has_every_setting
step 'the files that millraced(8) lists are there' listed_files_are_there
step 'bash completes options' completes
step 'an edited file of etc is kept, the new one beside it' edited_file_stays
step 'ninja uninstall leaves what was edited' uninstall_leaves_only ".$sysconfdir/millrace/millrace.conf"
rm "$edited"
step 'ninja install again' install_tree install
step 'ninja uninstall leaves nothing' uninstall_leaves_only ''

echo "$passed passed, $failed failed" | tee "$counts"
exit $((failed > 0))
