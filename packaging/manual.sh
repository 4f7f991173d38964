#!/bin/sh
# packaging/manual.sh PREFIX SYSCONFDIR SCD: write the manual page to standard output, with the places where things are installed.
set -eu
page=$(sed -e "s|@prefix@|$1|" -e "s|@sysconfdir@|$2|" "$3")
printf '%s\n' "$page" | scdoc
