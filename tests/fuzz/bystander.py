"""A well-behaved client, in a process of its own: writes, reads and compares for as long as it is let.

Its latencies and mistakes are what a hostile client beside it is judged by.
"""

import multiprocessing
import random
import time

import authority
import wire

BLOCK_BYTES = 4096
BLOCKS = 256
PAUSE_SECONDS = 0.002  # a client among others, not a load


class Bystander:
    """Works on EXPORT from start on, inside TLS if MAKE_CONTEXT makes a context for it; report() tells what it saw since the last."""

    def __init__(self, address, export, seed, make_context=None):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=work, args=(theirs, address, export, seed, make_context), daemon=True)
        self.process.start()

    def report(self):
        """(operations, p99 in seconds, longest in seconds, mistakes)"""
        self.ours.send("report")
        if not self.ours.poll(60):
            return 0, 60.0, 60.0, ["the bystander has been waiting for an answer for 60 s"]
        return self.ours.recv()

    def stop(self):
        self.process.kill()
        self.process.join()


def work(pipe, address, export, seed, make_context):
    rng, latencies, mistakes = random.Random(seed), [], []
    try:
        client = wire.Wire(address)
        client.greet()
        if make_context:
            authority.start_tls(client, make_context())
        client.ask_info(wire.OPT_GO, export)
        blocks = [bytes(BLOCK_BYTES)] * BLOCKS
        for index in range(BLOCKS):
            client.write(index * BLOCK_BYTES, blocks[index])
    except Exception as error:  # whatever it is, it is the report
        mistakes.append(repr(error))
    while True:
        if pipe.poll(PAUSE_SECONDS) or mistakes:
            pipe.recv()
            latencies.sort()
            count = len(latencies)
            pipe.send((count, latencies[count * 99 // 100] if count else 0.0, latencies[-1] if count else 0.0, mistakes))
            latencies, mistakes = [], []
            continue
        began = time.monotonic()
        try:
            work_once(client, rng, blocks)
        except Exception as error:
            mistakes.append(repr(error))
        latencies.append(time.monotonic() - began)


def work_once(client, rng, blocks):
    index = rng.randrange(BLOCKS)
    if rng.random() < 0.3:
        blocks[index] = rng.randbytes(BLOCK_BYTES)
        client.write(index * BLOCK_BYTES, blocks[index])
    elif client.read(index * BLOCK_BYTES, BLOCK_BYTES) != blocks[index]:
        raise ValueError(f"block {index} is not what was written")
