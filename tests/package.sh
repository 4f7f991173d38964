#!/bin/bash
# tests/package.sh DEB: install, edit, upgrade, remove and purge DEB in a clean tree of Debian 12, which debootstrap makes from
# the mirror that this machine uses.  Needs root and a few minutes.
# 'N passed, N failed' goes to build/test-counts/package too.  Exits 1 if something failed.
set -u
deb=$1
tree=$PWD/build/package-work/tree
counts=build/test-counts/package
passed=0
failed=0

mkdir -p build/test-counts build/package-work || exit 1
if [[ $(id -u) != 0 ]] || ! command -v debootstrap >/dev/null; then
	echo "skip: needs root and debootstrap" | tee "$counts"
	exit 0
fi
trap 'umount "$tree/proc" 2>/dev/null; rm -rf build/package-work' EXIT

# step NAME COMMAND...: counts whether COMMAND succeeds; its output is shown if it does not.
step()
{
	local name=$1
	shift
	if "$@" >build/package-work/output 2>&1; then
		((passed++))
		echo "ok   $name"
	else
		((failed++))
		echo "FAIL $name"
		tail -n 30 build/package-work/output | sed 's/^/     | /'
	fi
}

# The mirror of the first bookworm index that apt knows here.
mirror()
{
	apt-get indextargets --format '$(SITE) $(RELEASE)' | sed -n 's/ bookworm$//p' | head -n 1
}

inside()
{
	chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} \
		${https_proxy:+https_proxy="$https_proxy"} "$@"
}

make_tree()
{
	debootstrap --variant=minbase bookworm "$tree" "$(mirror)" && mount -t proc proc "$tree/proc" &&
		cp /etc/resolv.conf "$tree/etc/resolv.conf" && cp -r /etc/apt/apt.conf.d/. "$tree/etc/apt/apt.conf.d/" &&
		cp "$deb" "$tree/millrace.deb" && inside apt-get update
}

# All paths that a package could leave, and the accounts.
listing()
{
	(cd "$tree" && find etc usr/bin usr/lib/systemd usr/share/man usr/share/doc usr/share/millrace var/lib run \
		-path var/lib/apt -prune -o -path var/lib/dpkg -prune -o -print 2>/dev/null; cat "$tree/etc/passwd" "$tree/etc/group") |
		grep -i millrace | LC_ALL=C sort
}

nothing_is_enabled()
{
	! find "$tree/etc/systemd" -name '*millrace*' | grep .
}

check_accepts_an_export()
{
	truncate -s 1M "$tree/var/disk.img" && inside mkdir -p /etc/millrace/exports.d &&
		printf '[export disk]\npath = /var/disk.img\n' >"$tree/etc/millrace/exports.d/disk.conf" &&
		inside millraced --config /etc/millrace/millrace.conf --check
}

edited_conf_stays()
{
	echo '# mine' >>"$tree/etc/millrace/millrace.conf" && inside apt-get install -y --reinstall /millrace.deb &&
		grep -q '^# mine' "$tree/etc/millrace/millrace.conf"
}

removal_keeps_etc()
{
	inside apt-get remove -y millrace && grep -q '^# mine' "$tree/etc/millrace/millrace.conf" && [[ ! -e $tree/usr/bin/millraced ]]
}

purge_leaves_nothing()
{
	inside apt-get purge -y millrace || return 1
	local left
	left=$(listing)
	[[ -z $left ]] || { echo "left: $left"; return 1; }
}

step 'lintian finds no error' lintian --allow-root --fail-on error "$deb"
step 'a clean tree of Debian 12' make_tree
step 'the package is installed with what it needs' inside apt-get install -y --no-install-recommends /millrace.deb
step 'the user is there' inside getent passwd millrace
step 'nothing is enabled' nothing_is_enabled
step '--check accepts an export' check_accepts_an_export
step 'an edited configuration survives a new install' edited_conf_stays
step 'removal keeps what is in etc' removal_keeps_etc
step 'purge leaves nothing' purge_leaves_nothing

echo "$passed passed, $failed failed" | tee "$counts"
exit $((failed > 0))
