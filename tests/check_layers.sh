#!/bin/sh
# Dependencies run one way: reactor <- disk <- net <- daemon.  A folder includes only itself and what is left of it;
# bench and tests may include everything, and nothing includes them.
set -u
status=0

# allow FOLDER ALLOWED...: print each #include in FOLDER of a project header that is in none of ALLOWED.
# A name between quotes without a folder is refused as well: paths are relative to the top, build/config.h apart.
allow()
{
	folder=$1
	shift
	pattern=$(echo "$*" | tr ' ' '|')
	found=$(grep -rnE --include='*.[ch]' '^[ 	]*#[ 	]*include[ 	]*"' "$folder" |
		grep -vE "include[ 	]*\"($pattern)/[a-z0-9_]+\.h\"" |
		grep -vE 'include[ 	]*"(build/)?config\.h"')
	if [ -n "$found" ]; then
		echo "$found"
		echo "$folder may include only: $*"
		status=1
	fi
}

allow reactor reactor
allow disk reactor disk
allow net reactor disk net
allow daemon reactor disk net daemon
exit $status
