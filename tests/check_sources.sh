#!/bin/sh
# Every C file of the tree is compiled by build.ninja in both variants (what is for libFuzzer: in its own): one
# that was forgotten, such as a test that never ran, would not be noticed otherwise.
set -u
status=0
for source in $(find reactor disk net daemon bench/load tests -name '*.c' | sort); do
	variants='release sanitize'
	case $source in
	tests/fuzz/*) variants=fuzz ;;
	esac
	for variant in $variants; do
		object=build/$variant/${source%.c}.o
		if ! grep -qE "^build $object *: [a-z_]+ $source\$" build.ninja; then
			echo "build.ninja: nothing makes $object from $source"
			status=1
		fi
	done
done
exit $status
