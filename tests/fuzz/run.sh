#!/bin/sh
# Runs the fuzz targets one after the other, from the repository's top:  tests/fuzz/run.sh [TARGET]...
# FUZZ_SECONDS in the environment (60) is for 'ninja fuzz' in all: half of it is theirs, in equal parts.
# New inputs that reach new code are kept below build/fuzz/found/TARGET.  An input that makes a target fail is kept in
# build/fuzz/failures and named; 'build/fuzz/TARGET FILE' repeats it.  One that mattered belongs into tests/fuzz/corpus/TARGET.
set -u
counts=build/test-counts/fuzz-parsers
targets=${*:-config handshake request text}
set -- $targets
seconds=$((${FUZZ_SECONDS:-60} / 2 / $#))
[ "$seconds" -gt 0 ] || seconds=1
# Without a time limit of its own an endless loop would be found by nobody.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

mkdir -p build/test-counts build/fuzz/failures
rm -rf "$counts" build/fuzz/seeds
/usr/bin/python3 tests/fuzz/make_seeds.py build/fuzz/seeds || exit 1
passed=0
failed=0
for target in $targets; do
	mkdir -p "build/fuzz/found/$target"
	kept=
	[ -d "tests/fuzz/corpus/$target" ] && kept=tests/fuzz/corpus/$target
	log=build/fuzz/$target.log
	# -max_len: past the longest option that is looked at.
	if build/fuzz/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=40000 -len_control=200 \
		-print_final_stats=1 -artifact_prefix=build/fuzz/failures/"$target"- -dict=tests/fuzz/"$target".dict \
		"build/fuzz/found/$target" "build/fuzz/seeds/$target" $kept >"$log" 2>&1; then
		passed=$((passed + 1))
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		cover=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
		echo "ok   $target: $runs inputs in $seconds s, $cover"
	else
		failed=$((failed + 1))
		echo "FAIL $target:"
		tail -n 60 "$log"
	fi
done
echo "$passed passed, $failed failed" | tee "$counts"
[ "$failed" -eq 0 ]
