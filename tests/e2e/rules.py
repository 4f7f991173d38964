"""What the tests of the protocol's rules stand on: a volume served, in every style of replies.

To find mistakes in the tests themselves they run against other servers too: with RULES_PEER=nbdkit or RULES_PEER=qemu-nbd in
the environment that server takes the daemon's place.  It fails where it has gaps; what a test can't ask of a peer it skips.
"""

import contextlib
import os

from harness import MIB, TCP, Address, Skip, equal, random_bytes, same_bytes, start_process
from harness import two_cores, wait_for_listener
from wire import Closed, Wire
from wire_replies import CMD_FLUSH, EXTENDED, STYLES

PEER = os.environ.get("RULES_PEER", "")
SIZE_BYTES = 8 * MIB
HOLE_BYTES = (4 * MIB, 6 * MIB)  # nothing is there in the image
PATTERN_AT = MIB  # what tests may overwrite begins here; before it is the bystander's
EVERY_STYLE = [(style,) for style in STYLES]
ALLOCATION = "base:allocation"


def sparse_content():
    """SIZE_BYTES with a hole in the middle."""
    content = bytearray(random_bytes(SIZE_BYTES))
    content[slice(*HOLE_BYTES)] = bytes(HOLE_BYTES[1] - HOLE_BYTES[0])
    return bytes(content)


def sparse_file(env, content, size_bytes):
    """CONTENT, but for the hole, in a file of SIZE_BYTES."""
    path = env.file(size_bytes)
    with open(path, "r+b") as file:
        file.write(content[: HOLE_BYTES[0]])
        file.seek(HOLE_BYTES[1])
        file.write(content[HOLE_BYTES[1] :])
    return path


class Setting:
    """A server with the export "disk", and a bystander on it which must see nothing of what goes on."""

    def __init__(self, env, size_bytes, transport, read_only, lines):
        self.env = env
        self.size_bytes = size_bytes
        self.content = sparse_content()
        self.path = sparse_file(env, self.content, size_bytes)
        self.daemon = None
        if PEER:
            self.address = self.start_peer(read_only, lines)
        else:
            self.daemon = self.start(transport, read_only, lines)
            self.address = self.daemon.address
        self.bystander = self.transmitting()
        self.read_only = read_only

    def start(self, transport, read_only, lines):
        text = [
            *("[server]", f"listen = {self.env.listen_text(transport)}"),
            *("[reactor]", f"cores = {two_cores()}"),
            *("[export disk]", f"path = {self.path}", "description = the disk of the rules"),
            *(["read-only = yes"] if read_only else []),
            *lines,
        ]
        return self.env.serve("--config", self.env.config("\n".join(text) + "\n"))

    def start_peer(self, read_only, lines):
        if lines:
            raise Skip(f"{PEER} has no such settings")
        path = self.env.socket_path()
        if PEER == "nbdkit":
            command = ["nbdkit", "-f", "-U", path, *(["-r"] if read_only else []), "file", self.path]
        else:
            command = ["qemu-nbd", "-k", path, "-t", "-e", "20", "-f", "raw", "-x", "disk", "-D", "a disk"]
            command += ["--discard=unmap", *(["-r"] if read_only else []), self.path]
        with open(self.env.path("peer.log"), "wb") as log:
            process = start_process(command, stdout=log, stderr=log)
        self.env.processes.append(process)
        wait_for_listener(path, PEER)
        return Address(f"unix:{path}")

    def connect(self):
        return self.env.keep(Wire(self.address))

    def greeted(self, style="simple"):
        client = self.connect()
        client.greet()
        client.negotiate(style)
        return client

    def transmitting(self, style="simple", contexts=(), infos=()):
        client = self.connect()
        client.go("disk", infos, style=style, contexts=contexts)
        return client

    def flags(self, style="simple"):
        """The transmission flags."""
        return self.connect().go("disk", style=style)[1]

    def check_in_step(self, client):
        """CLIENT is in transmission: no byte too much or too little was consumed."""
        same_bytes(client.read(2 * MIB + 1, 700), self.content[2 * MIB + 1 :][:700], "a read afterwards")

    def check_bystander(self):
        if not self.read_only:
            data = os.urandom(5000)
            self.bystander.write(1000, data)
            same_bytes(self.bystander.read(1000, 5000), data, "what the bystander wrote")
            equal(self.bystander.call(CMD_FLUSH), (0, b""), "the bystander's flush")

    def check_unchanged(self, start=PATTERN_AT, end=SIZE_BYTES):
        got = self.bystander.read(start, end - start)
        same_bytes(got, self.content[start:end], f"the volume from {start} on")


@contextlib.contextmanager
def served(env, size_bytes=SIZE_BYTES, transport=TCP, read_only=False, lines=()):
    here = Setting(env, size_bytes, transport, read_only, lines)
    yield here
    here.check_bystander()


def need_style(style):
    """Skip where a peer is too old for STYLE."""
    if PEER and style == EXTENDED:
        raise Skip(f"{PEER} here has no extended headers")


def need_ours(what):
    if PEER:
        raise Skip(f"{PEER}: {what}")
