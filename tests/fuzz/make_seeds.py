#!/usr/bin/python3
"""Writes the inputs that the fuzz targets start from:  tests/fuzz/make_seeds.py DIRECTORY

They are made from the wire-level client and the example configuration, so they are as complete as those are.
"""

import os
import random
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import messages  # noqa: E402
import wire  # noqa: E402
from wire_replies import STYLES  # noqa: E402

SESSIONS = 40
EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "etc", "millrace.conf")

# The first letter chooses the parser: fuzz_text.c, whose order this is (modulo 5).
ADDRESSES = ("127.0.0.1:10809", "[::1]:0", "[fe80::1%lo]:80", "unix:/run/a.sock", "vsock:2:10809", "localhost:1", "0:65536", "[::]:", ":")
RANGES = ("all", "10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::1", "::ffff:10.0.0.0/104", "unix", "vsock", "vsock:3", "1.2.3.4/33")
CPUS = ("0-3,8", "0", "7,3-5", "3-1", "0-65535", "1, 2", "1,1", "99999999999999999999")
VALUES = ("128M", "1024T", "0", "yes", "off", "memory", "18446744073709551616", "-1", "12k", "\u00e4\u20ac")
FAULTS = ("seed=7 read-error=0.01 range=0-512M delay-ms=5", "error=ENOSPC write-error=1", "torn-write=0.5 short-io=1e-3", "seed=", "x=1")


def write(directory, name, data):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def make_handshakes(directory):
    for number in range(SESSIONS):
        rng = random.Random(number)
        data = b"".join(messages.handshake(rng, STYLES[number % 3], rng.choice(("disk", "", "\u00e4"))))
        write(directory, f"session-{number}", bytes([rng.randrange(256)]) + data)
    malformed = (wire.pack_queries("disk", ("base:",))[:-1], struct.pack(">I4sI", 4, b"disk", 0xFFFFFFFF), bytes(20_000))
    for number, data in enumerate(malformed):
        for option in (6, 9, 10, 0x7777):
            sent = struct.pack(">I", 3) + wire.pack_option(option, data) + wire.pack_option(wire.OPT_ABORT)
            write(directory, f"malformed-{option}-{number}", b"\x10" + sent)


def make_requests(directory):
    for style in range(3):
        for command in range(9):
            pack = wire.pack_extended_request if style == 2 else wire.pack_request
            header = pack(command, 4096, 8192, 0x20 if style == 2 and command in (1, 7) else 0, 1)
            write(directory, f"{style}-{command}", bytes([style | 8]) + header + struct.pack(">QI", 4096, 1) + bytes(8))


def make_configs(directory):
    with open(EXAMPLE, encoding="utf-8") as file:
        lines = file.read().splitlines()
    write(directory, "example", "\n".join(lines).encode())
    # What is commented out becomes what is said; a setting is a word before an equals sign.
    said = [line[1:] if line[:2] in ("#[",) or (line[:1] == "#" and line[1:2].isalpha() and " = " in line) else line for line in lines]
    write(directory, "everything", "\n".join(line for line in said if line and not line.startswith("#")).encode())
    write(directory, "small", b"[server]\nlisten = 127.0.0.1:0\n[export a]\ntype = memory\nsize = 1M\n")


def make_texts(directory):
    for parser, texts in enumerate((ADDRESSES, RANGES, CPUS, VALUES, FAULTS)):
        for number, text in enumerate(texts):
            write(directory, f"{parser}-{number}", bytes([ord("A") // 5 * 5 + parser]) + text.encode())


def main():
    (directory,) = sys.argv[1:]
    make_handshakes(os.path.join(directory, "handshake"))
    make_requests(os.path.join(directory, "request"))
    make_configs(os.path.join(directory, "config"))
    make_texts(os.path.join(directory, "text"))


if __name__ == "__main__":
    main()
