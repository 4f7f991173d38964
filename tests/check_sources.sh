#!/bin/sh
# Every C file of the product and of the tests is compiled by build.ninja in both variants (what is for libFuzzer: in its own),
# and every end-to-end test is run: one that was forgotten would not be noticed otherwise.
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
for module in tests/e2e/test_*.py; do
	name=$(basename "$module" .py)
	if ! grep -q "^    \"$name\",\$" tests/e2e/run.py; then
		echo "tests/e2e/run.py: does not run $name"
		status=1
	fi
done
exit $status
