#!/bin/sh
# packaging/deb.sh VERSION: 'ninja deb' makes build/millrace_VERSION_ARCH.deb, the daemon and what belongs to it, and
# build/libmillrace-reactor-dev_VERSION_ARCH.deb, the reactor's library.  They are laid out for /usr and /etc whatever configure
# was told.  Needs dpkg-dev, and no root: dpkg-deb makes root the owner of all.
set -eu
version=$1
here=$(pwd)
work=build/deb-work
daemon=$work/millrace
library=$work/libmillrace-reactor-dev
arch=$(dpkg --print-architecture)
maintainer=${DEBFULLNAME:-Millrace developers}" <${DEBEMAIL:-millrace@example.org}>"

# control PACKAGE SECTION DEPENDS SUMMARY; the description, with its leading spaces, on standard input.
control()
{
	mkdir -p "$work/$1/DEBIAN"
	{
		echo "Package: $1"
		echo "Version: $version"
		echo "Architecture: $arch"
		echo "Maintainer: $maintainer"
		echo "Installed-Size: $(du -sk --exclude=DEBIAN "$work/$1" | cut -f1)"
		echo "Depends: $3"
		echo "Section: $2"
		echo "Priority: optional"
		echo "Description: $4"
		cat
	} >"$work/$1/DEBIAN/control"
}

# document PACKAGE: what Debian wants of each package.
document()
{
	directory=$work/$1/usr/share/doc/$1
	mkdir -p "$directory"
	cat >"$directory/copyright" <<-END
		Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
		Upstream-Name: Millrace

		Files: *
		Copyright: 2026 Millrace developers
		License: Apache-2.0
		 On Debian systems the whole license is in /usr/share/common-licenses/Apache-2.0.
	END
	cat <<-END | gzip -9n >"$directory/changelog.gz"
		millrace ($version) unstable; urgency=medium

		  * Release $version.

		 -- $maintainer  $(date -R -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y configure)}")
	END
}

# finish PACKAGE
finish()
{
	(cd "$work/$1" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
	find "$work/$1" -type d -exec chmod 755 {} +
	dpkg-deb --root-owner-group --build "$work/$1" "build/${1}_${version}_$arch.deb"
}

rm -rf "$work"
DESTDIR=$here/$daemon packaging/install.sh install /usr /etc
sed -e 's|@bindir@|/usr/bin|' -e 's|@sysconfdir@|/etc|' packaging/millrace.service.in >"$daemon/usr/lib/systemd/system/millrace.service"
for page in millraced.8 millrace-import-nbd-server.1; do
	packaging/manual.sh /usr /etc doc/man/$page.scd >"$daemon/usr/share/man/man${page##*.}/$page"
done
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$daemon/usr/bin/millraced" "$daemon/usr/bin/millrace-bench"
gzip -9n "$daemon"/usr/share/man/man*/*
mkdir -p "$library/usr/lib" "$library/usr/include"
mv "$daemon/usr/lib/libmillrace-reactor.a" "$daemon/usr/lib/pkgconfig" "$library/usr/lib"
mv "$daemon/usr/include/millrace" "$library/usr/include"
rmdir "$daemon/usr/include"
strip --strip-debug "$library/usr/lib/libmillrace-reactor.a"
sed -e 's|@prefix@|/usr|' -e "s|@version@|$version|" reactor/millrace-reactor.pc.in >"$library/usr/lib/pkgconfig/millrace-reactor.pc"

# dpkg-shlibdeps wants a source package's control file beside it.
mkdir -p "$work/shlibs/debian"
printf 'Source: millrace\n\nPackage: millrace\nArchitecture: any\n' >"$work/shlibs/debian/control"
depends=$(cd "$work/shlibs" && dpkg-shlibdeps -O -e../millrace/usr/bin/millraced -e../millrace/usr/bin/millrace-bench |
	sed -n 's/^shlibs:Depends=//p')

control millrace net "$depends, passwd, python3" 'NBD server, thread per core' <<-END
	 Serves disk images and block devices to clients of the NBD protocol: QEMU,
	 libnbd, the Linux kernel. One thread runs on each core, and on each core one
	 Linux AIO context through which direct disk I/O and sockets pass.
END
control libmillrace-reactor-dev libdevel 'libaio-dev, libnuma-dev' 'event loop on Linux AIO, thread per core' <<-END
	 The reactor of the Millrace NBD server as a static library: sockets, direct
	 disk I/O, timers, messages, signals and children in one AIO ring for each
	 thread.
END
(cd "$daemon" && find etc -type f -printf '/%p\n' | LC_ALL=C sort) >"$daemon/DEBIAN/conffiles"
for script in postinst prerm postrm; do
	install -m 755 "packaging/deb/$script" "$daemon/DEBIAN/$script"
done
for package in millrace libmillrace-reactor-dev; do
	document $package
	finish $package
done
