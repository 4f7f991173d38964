#!/usr/bin/python3
"""The README's table of the protocol names tests that there are: each name in its last column is one of an end-to-end test, or the
beginning or a part of one, as run.py --only takes it; behind "unit", the suite of a unit test."""

import glob
import os
import re
import sys

TESTS = re.compile(r"^@test\(.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)


def end_to_end_tests():
    found = set()
    for path in glob.glob("tests/e2e/test_*.py"):
        module = os.path.basename(path).removeprefix("test_").removesuffix(".py")
        with open(path, encoding="utf-8") as file:
            found.update(f"{module}.{name}" for name in TESTS.findall(file.read()))
    return found


def rows():
    with open("README.md", encoding="utf-8") as file:
        section = file.read().split("## The protocol\n")[1].split("\n## ")[0]
    return [line.split(" | ") for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def main():
    tests, missing = end_to_end_tests(), []
    table = [row for row in rows() if row[-1] != "shown by |"]
    for row in table:
        end_to_end, _, unit = row[-1].partition("unit ")
        for name in re.findall(r"`([^`]+)`", end_to_end):
            if name != "ninja fuzz" and not any(name in test for test in tests):
                missing.append(f"{row[0]}: no end-to-end test is called {name}")
        for name in re.findall(r"`([^`]+)/\*`", unit):
            if not os.path.exists(f"tests/unit/test_{name}.c"):
                missing.append(f"{row[0]}: there are no unit tests of {name}")
    if not table or not tests:
        missing.append("the table, or the tests, were not found")
    print("".join(f"README.md: {text}\n" for text in missing), end="")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
