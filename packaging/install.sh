#!/bin/sh
# packaging/install.sh install|uninstall PREFIX SYSCONFDIR: what 'ninja install' puts in place below $DESTDIR, and takes away
# again.  A file of etc that somebody has edited, or that is another version's, is neither overwritten nor removed; the new one is put beside it, as NAME.new.
set -eu
action=$1
prefix=$2
sysconfdir=$3
root=${DESTDIR:-}

# put MODE SOURCE TARGET: at its place below the root.
put()
{
	case $action in
	install) install -D -m "$1" "$2" "$root$3" ;;
	uninstall) drop "$3" ;;
	esac
}

# put_etc SOURCE TARGET
put_etc()
{
	case $action in
	install)
		if [ ! -e "$root$2" ]; then
			install -D -m 644 "$1" "$root$2"
		elif ! cmp -s "$1" "$root$2"; then
			install -m 644 "$1" "$root$2.new"
			echo "$2 differs from the new one, $2.new, and stays"
		fi
		;;
	uninstall)
		rm -f "$root$2.new"
		if [ ! -e "$root$2" ]; then
			:
		elif cmp -s "$1" "$root$2"; then
			drop "$2"
		else
			echo "$2 differs from the one that was installed, and stays"
		fi
		;;
	esac
}

# drop PATH: remove it, and the directories above it that are empty then and Millrace's alone.
drop()
{
	rm -f "$root$1"
	directory=${1%/*}
	while case ${directory#"$prefix"} in */millrace | */millrace/*) true ;; *) false ;; esac do
		rmdir "$root$directory" 2>/dev/null || break
		directory=${directory%/*}
	done
}

put 755 build/millraced "$prefix/bin/millraced"
put 755 build/millrace-bench "$prefix/bin/millrace-bench"
put 755 packaging/millrace-import-nbd-server "$prefix/bin/millrace-import-nbd-server"

put 644 build/packaging/millrace.service "$prefix/lib/systemd/system/millrace.service"
put 644 packaging/millrace.socket "$prefix/lib/systemd/system/millrace.socket"
put 644 packaging/millrace.sysusers "$prefix/lib/sysusers.d/millrace.conf"
put 644 etc/sysctl.d/60-millrace.conf "$prefix/share/millrace/60-millrace.conf"
put_etc etc/millrace.conf "$sysconfdir/millrace/millrace.conf"
put_etc etc/exports.d/README "$sysconfdir/millrace/exports.d/README"

put 644 build/packaging/millraced.8 "$prefix/share/man/man8/millraced.8"
put 644 build/packaging/millrace.conf.5 "$prefix/share/man/man5/millrace.conf.5"
put 644 build/packaging/millrace-bench.1 "$prefix/share/man/man1/millrace-bench.1"
put 644 build/packaging/millrace-import-nbd-server.1 "$prefix/share/man/man1/millrace-import-nbd-server.1"
for page in quick-start moving tuning recipes/vm-disk recipes/backup recipes/diskless-boot recipes/container-volume; do
	put 644 "doc/$page.md" "$prefix/share/doc/millrace/$page.md"
done
put 644 packaging/millrace-bench.bash "$prefix/share/bash-completion/completions/millrace-bench"
put 644 packaging/millraced.bash "$prefix/share/bash-completion/completions/millraced"

put 644 build/libmillrace-reactor.a "$prefix/lib/libmillrace-reactor.a"
put 644 build/millrace-reactor.pc "$prefix/lib/pkgconfig/millrace-reactor.pc"
# What the library's users see: all headers but those of the mapped ring and of the reactor's inside.
for header in reactor/*.h; do
	case $header in
	reactor/ring.h | reactor/reactor_state.h) ;;
	*) put 644 "$header" "$prefix/include/millrace/$header" ;;
	esac
done
