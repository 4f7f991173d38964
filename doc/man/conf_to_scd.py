#!/usr/bin/python3
"""Writes millrace.conf(5) as scdoc takes it, from the example configuration, which is the manual of its settings.

    conf_to_scd.py etc/millrace.conf >millrace.conf.5.scd

A block of the example is comment lines and the settings below them, up to a blank line.  Settings that are commented out are
defaults, or examples where the comment ends with "For example:" or the block begins a section.
"""

import re
import sys

SETTING = re.compile(r"#?(?P<key>[a-z0-9-]+) = (?P<value>.*)$")
SECTION = re.compile(r"#?\[(?P<title>[^]]*)\]$")
SPECIAL = re.compile(r"([\\*_])")
ANNOUNCED = re.compile(r"\s*\bFor example(, besides)?:$")

HEAD = """millrace.conf(5) "" "Millrace"

# NAME

millrace.conf - settings of millraced

# DESCRIPTION

"""

TAIL = """# SEE ALSO

*millraced*(8)
"""


def escape(text):
    return SPECIAL.sub(r"\\\1", text)


def blocks_of(lines):
    """Each block: its comment lines, without #, and the lines of its settings."""
    comments, settings = [], []
    for line in [*lines, ""]:
        if line and (SETTING.match(line) or SECTION.match(line)):
            settings.append(line)
        elif line.startswith("#"):
            if settings:
                yield comments, settings
                comments, settings = [], []
            comments.append(line[1:].removeprefix(" "))
        elif not line and (comments or settings):
            yield comments, settings
            comments, settings = [], []


def paragraphs(comments, indent):
    """Prose as it is; indented lines as they are laid out."""
    literal = False
    out = []
    for line in comments:
        if line.startswith("  ") != literal:
            literal = not literal
            out += ["", indent + "```"] if literal else [indent + "```", ""]
        if not line:
            out.append("")
        else:
            out.append(indent + (line if literal else escape(line)))
    if literal:
        out.append(indent + "```")
    return out + [""]


def write_block(comments, settings):
    section = next((SECTION.match(line) for line in settings if SECTION.match(line)), None)
    out = []
    if section:
        out += [f"# THE SECTION [{section['title']}]", ""]
    keys = [SETTING.match(line) for line in settings if SETTING.match(line)]
    announced = comments and ANNOUNCED.search(comments[-1])
    for match in keys:
        if not match[0].startswith("#"):
            said = "so in the file that is installed; default: none"
        else:
            said = "example" if section or announced else "default"
        out += [f"*{escape(match['key'])}* = {escape(match['value'])} ({said})", ""]
    if announced and keys:
        comments = [*comments[:-1], ANNOUNCED.sub("", comments[-1])]
    out += paragraphs(comments, "\t" if keys else "")
    return out


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = file.read().splitlines()
    print(HEAD, end="")
    for comments, settings in blocks_of(lines):
        print("\n".join(write_block(comments, settings)))
    print(TAIL, end="")


if __name__ == "__main__":
    main()
