#!/bin/sh
# Runs the unit tests:  tests/run_unit.sh VARIANT PROGRAM [CRITERION OPTION]...
# VARIANT names the build (release, sanitize); 'N passed, N failed' goes to build/test-counts/unit-VARIANT too, and behind it
# what failed.
# Exits 1 if a test failed, a sanitizer had something to say, or the time was up.
set -u
variant=$1
program=$2
shift 2
time_limit_s=300
counts=build/test-counts/unit-$variant
log=build/unit-$variant.log
reports=$PWD/build/sanitizer-reports-$variant

rm -rf "$reports" "$counts"
mkdir -p "$reports" build/test-counts

# Criterion runs each test in a process of its own and does not look at how it ends after the test's last line, which
# is where leaks are found: a leak shows only as a report.  The reports go to files, and any file is a failure.
export ASAN_OPTIONS="log_path=$reports/asan:detect_stack_use_after_return=1"
# Criterion itself loses a few bytes where a test ends while another of its threads is at work.
printf 'leak:libcriterion\n' >"$reports.suppressions"
export LSAN_OPTIONS="suppressions=$reports.suppressions:print_suppressions=0"
export UBSAN_OPTIONS="log_path=$reports/ubsan:halt_on_error=1:print_stacktrace=1"

# What the host of a virtual machine has taken from its CPUs since it booted, in ticks: proc_stat(5).
stolen_ticks()
{
	awk '/^cpu /{ print $9 }' /proc/stat
}

# A test that fails while the host takes CPU time may do so for that: it is tried again, alone, once.  Not one that crashed, or whose
# failure a sanitizer had something to say about.
# Prints how many succeed then.
try_again()
{
	again=0
	[ $(($(stolen_ticks) - stolen_before)) -gt 5 ] || { echo 0; return; }
	for name in $(sed -n 's/^\[FAIL\] \([^: ]*\)::\([^: ]*\):.*/\1\/\2/p' "$log" | sort -u); do
		timeout --kill-after=5 60 "$program" --color=never --filter "$name" >"$log.again" 2>&1 || continue
		grep -q 'Synthesis: Tested: 1 |' "$log.again" && again=$((again + 1))
	done
	rm -f "$log.again"
	echo $again
}

# The status goes through a file: a pipe keeps only tee's.
stolen_before=$(stolen_ticks)
{
	timeout --kill-after=5 "$time_limit_s" "$program" --color=never "$@" 2>&1
	echo $? >"$log.status"
} | tee "$log"
status=$(cat "$log.status")
rm -f "$log.status"
[ "$status" -ne 124 ] || echo "unit tests: not done after $time_limit_s s"

# "[====] Synthesis: Tested: 7 | Passing: 5 | Failing: 1 | Crashing: 1"
synthesis=$(grep 'Synthesis: Tested:' "$log" | tail -n 1)
passed=$(expr "$synthesis" : '.*Passing: \([0-9]*\)')
tested=$(expr "$synthesis" : '.*Tested: \([0-9]*\)')
failed=$((${tested:-0} - ${passed:-0}))
again=0
if [ "$status" -eq 1 ] && [ "$failed" -gt 0 ]; then
	again=$(try_again)
	passed=$((passed + again))
	failed=$((failed - again))
	[ "$failed" -gt 0 ] || status=0
fi
for report in "$reports"/*; do
	[ -e "$report" ] || continue
	echo "$report:"
	cat "$report"
	status=1
done
# Something is wrong that no test was blamed for (a leak, the time limit, nothing ran): it counts as one.
[ "${tested:-0}" -gt 0 ] || status=1
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
	failed=1
fi
{
	echo "${passed:-0} passed, $failed failed$([ "$again" -eq 0 ] || echo ", $again disturbed and tried again")"
	grep -E '^\[(----|FAIL|CRASH)' "$log" | head -n 40
} | tee "$counts"
[ "$status" -eq 0 ] && [ "$failed" -eq 0 ]
