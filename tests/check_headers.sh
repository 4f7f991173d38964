#!/bin/sh
# Every header compiles alone, twice in a row (its guard works), and its guard is FOLDER_FILE_H.
# tests/check_headers.sh COMPILER FLAG...
set -u
status=0
for header in $(find reactor disk net daemon bench tests -name '*.h' | sort); do
	guard=$(echo "$header" | tr 'a-z/.-' 'A-Z___')
	if ! grep -q "^#ifndef $guard\$" "$header"; then
		echo "$header: its guard must be $guard"
		status=1
	fi
	if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" | "$@" -fsyntax-only -x c -; then
		echo "$header: does not compile alone"
		status=1
	fi
done
exit $status
