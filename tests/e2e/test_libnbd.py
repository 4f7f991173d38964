"""libnbd as programs in C use it, with its strict mode off: tests/e2e/libnbd_requests.c, plain and inside TLS."""

import os

import test_tls
from authority import Authority
from harness import MIB, Failure, Skip, equal, test, two_cores
from wire import EXTENDED, SIMPLE, STRUCTURED

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/release/tests/e2e/libnbd-requests")
PLAIN = "plain"
LACKS_STYLE = 77


@test(
    over=[(PLAIN, SIMPLE), (PLAIN, STRUCTURED), (PLAIN, EXTENDED), (test_tls.X509, STRUCTURED), (test_tls.PSK, STRUCTURED)],
    quick=[(PLAIN, STRUCTURED), (test_tls.X509, STRUCTURED)],
)
def bad_requests_come_back_with_the_right_error(env, kind, style):
    if not os.path.exists(PROGRAM):
        raise Failure(f"{PROGRAM}: not built; ninja build/release/tests/e2e/libnbd-requests")
    authority = Authority(env)
    daemon = env.serve(
        "--config",
        env.config(
            f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n{authority.settings()}\n"
            f"[export disk]\npath = {env.file(8 * MIB + 1234)}\n"
            f"[export rom]\npath = {env.file(MIB)}\nread-only = yes\n"
        ),
    )
    for export in ("disk", "rom"):
        where = daemon.uri(export)
        if kind != PLAIN:
            where = test_tls.uri(authority, daemon.address, kind).replace("/disk", f"/{export}")
        result = env.run([PROGRAM, where, style], expect=None)
        if result.code == LACKS_STYLE:
            raise Skip("this libnbd has no extended headers")
        equal(result.code, 0, f"exit code for {where}:\n{result.out}{result.err}")
