#!/usr/bin/python3
"""bench_to_scd.py PROGRAM TEMPLATE: millrace-bench(1) in scdoc's format: TEMPLATE with what PROGRAM's commands say of their options
(--help) at @OPTIONS@.  The program's help is the only place where an option is described."""

import re
import subprocess
import sys

COMMANDS = ("run", "verify", "ramp")
OPTION = re.compile(r"^  (--[a-z0-9-]+)(?: ([A-Z]+))? {2,}(.*)$")


def options_of(program, command):
    """Its options in order: name -> (argument or None, description)."""
    found, last = {}, None
    for line in subprocess.run([program, command, "--help"], check=True, capture_output=True, text=True).stdout.splitlines():
        match = OPTION.match(line)
        if match:
            last = match[1]
            found[last] = (match[2], match[3])
        elif last and line.startswith("      "):
            found[last] = (found[last][0], f"{found[last][1]} {line.strip()}")
    return found


def escaped(text):
    return re.sub(r"([*_\\])", r"\\\1", text)


def entry(name, argument, description, commands):
    heading = f"*{name}*" + (f" _{argument}_" if argument else "")
    where = "" if len(commands) == len(COMMANDS) else f" (*{'*, *'.join(commands)}*)"
    return f"{heading}{where}\n\t{escaped(description)}\n"


def main():
    program, template = sys.argv[1:]
    by_command = {command: options_of(program, command) for command in COMMANDS}
    merged = {}
    for command, options in by_command.items():
        for name, (argument, description) in options.items():
            merged.setdefault(name, (argument, description, []))[2].append(command)
    entries = [entry(name, *values) for name, values in merged.items() if name != "--help"]
    entries.append("*--help*\n\tWrite what a command is asked with, and exit.\n")
    with open(template, encoding="utf-8") as file:
        sys.stdout.write(file.read().replace("@OPTIONS@\n", "\n".join(entries)))


main()
