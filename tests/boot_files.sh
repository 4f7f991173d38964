#!/bin/bash
# tests/boot_files.sh DIRECTORY: what the page of the diskless boot gets from elsewhere, Debian's kernel, into DIRECTORY, once.
# Without a network there is none, and DIRECTORY stays empty: then the page says what is missing.
set -eu
mkdir -p "$1"
cd "$1"
ls linux-image-*.deb >/dev/null 2>&1 && exit
name=$(apt-cache depends linux-image-amd64 | grep -o 'linux-image-[0-9][^ ]*')
apt-get download "$name" >download.log 2>&1 || cat download.log
