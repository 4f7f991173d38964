#!/bin/sh
# tests/check_format.sh CLANG_FORMAT: is every C file laid out as .clang-format says?  With --fix after it: lay it out.
set -u
clang_format=$1
mode=${2:---check}

# Versions differ in small things; only the one that .clang-format was written for is an authority.
version=$("$clang_format" --version | sed 's/.*version \([0-9]*\).*/\1/')
if [ "$version" != 14 ]; then
	echo "format: skipped, needs clang-format 14 and $clang_format is version ${version:-unknown}"
	exit 0
fi
case $mode in
--fix) options=-i ;;
*) options='--dry-run --Werror' ;;
esac
# $options is several words.
find reactor disk net daemon bench tests doc -name '*.[ch]' -print0 | xargs -0 -r "$clang_format" $options
