"""The rules as libnbd sees them when it is told not to look at what it sends (strict mode off)."""

import errno

import nbd

from harness import MIB, check, equal, same_bytes, test
from rules import PATTERN_AT, SIZE_BYTES, need_ours, served

FLAG_NOBODY_KNOWS = 1 << 9
ALLOCATION = "base:allocation"


def connect(here, structured, contexts=True):
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.set_request_structured_replies(structured)
    if structured and contexts:
        handle.add_meta_context(ALLOCATION)
    handle.connect_uri(here.address.uri("disk"))
    return handle


def error_of(function, *arguments):
    """The errno that the call fails with."""
    try:
        function(*arguments)
    except nbd.Error as error:
        return error.errnum
    return 0


def check_refusals(handle, wanted):
    for what, (error, function, *arguments) in wanted.items():
        equal(error_of(function, *arguments), error, f"errno of {what}")


@test(over=[(True,), (False,)], quick=True)
def libnbd_gets_an_error_for_each_bad_request_and_goes_on(env, structured):
    with served(env) as here:
        handle = connect(here, structured)
        end, data = SIZE_BYTES, bytes(4096)
        check_refusals(
            handle,
            {
                "a read past the end": (errno.EINVAL, handle.pread, 4096, end - 4095),
                "a read far beyond": (errno.EINVAL, handle.pread, 4096, 1 << 62),
                "a read of nothing": (errno.EINVAL, handle.pread, 0, 0),
                "a read with an unknown flag": (errno.EINVAL, handle.pread, 4096, 0, FLAG_NOBODY_KNOWS),
                "a write past the end": (errno.ENOSPC, handle.pwrite, data, end - 4095),
                "a write far beyond": (errno.ENOSPC, handle.pwrite, data, 1 << 62),
                "a write of nothing": (errno.EINVAL, handle.pwrite, b"", 0),
                "a write with DF": (errno.EINVAL, handle.pwrite, data, PATTERN_AT, nbd.CMD_FLAG_DF),
                "a trim past the end": (errno.EINVAL, handle.trim, 4096, end - 4095),
                "a trim of nothing": (errno.EINVAL, handle.trim, 0, PATTERN_AT),
                "a trim with NO_HOLE": (errno.EINVAL, handle.trim, 4096, PATTERN_AT, nbd.CMD_FLAG_NO_HOLE),
                "zeroes past the end": (errno.ENOSPC, handle.zero, 4096, end - 4095),
                "zeroes with REQ_ONE": (errno.EINVAL, handle.zero, 4096, PATTERN_AT, nbd.CMD_FLAG_REQ_ONE),
                "a cache past the end": (errno.EINVAL, handle.cache, 4096, end - 4095),
                "a flush with an unknown flag": (errno.EINVAL, handle.flush, FLAG_NOBODY_KNOWS),
            },
        )
        same_bytes(bytes(handle.pread(MIB, PATTERN_AT)), here.content[PATTERN_AT:][:MIB], "a read afterwards")
        here.check_unchanged()
        handle.shutdown()


@test(quick=True)
def libnbd_gets_an_error_for_status_without_a_context(env):
    with served(env) as here:
        handle = connect(here, True, contexts=False)
        equal(error_of(handle.block_status, 4096, 0, lambda *_: 0), errno.EINVAL, "errno")
        same_bytes(bytes(handle.pread(MIB, PATTERN_AT)), here.content[PATTERN_AT:][:MIB], "a read afterwards")
        handle.shutdown()


@test(over=[(True,), (False,)], quick=True)
def libnbd_may_not_change_a_read_only_export(env, structured):
    with served(env, read_only=True) as here:
        handle = connect(here, structured)
        check(handle.is_read_only(), "is_read_only")
        check_refusals(
            handle,
            {
                "a write": (errno.EPERM, handle.pwrite, bytes(4096), PATTERN_AT),
                "a durable write": (errno.EPERM, handle.pwrite, bytes(4096), PATTERN_AT, nbd.CMD_FLAG_FUA),
                "a trim": (errno.EPERM, handle.trim, 4096, PATTERN_AT),
                "zeroes": (errno.EPERM, handle.zero, 4096, PATTERN_AT),
            },
        )
        here.check_unchanged()
        handle.shutdown()


@test(quick=True)
def libnbd_negotiates_step_by_step(env):
    """Option mode: wrong exports, lists, contexts, then the right one, on one connection."""
    need_ours("has its own way with names")
    with served(env) as here:
        handle = nbd.NBD()
        handle.set_strict_mode(0)
        handle.set_opt_mode(True)
        handle.connect_uri(here.address.uri("nothing"))
        check(error_of(handle.opt_info) != 0, "opt_info of no export succeeded")
        check(error_of(handle.opt_go) != 0, "opt_go of no export succeeded")
        found = []
        equal(handle.opt_list(lambda name, description: found.append((name, description)) or 0), 1, "exports listed")
        equal(found, [("disk", "the disk of the rules")], "exports")
        handle.set_export_name("disk")
        handle.add_meta_context(ALLOCATION)
        handle.opt_info()
        equal(handle.get_size(), SIZE_BYTES, "size")
        handle.opt_go()
        check(handle.can_meta_context(ALLOCATION), "base:allocation")
        same_bytes(bytes(handle.pread(4096, PATTERN_AT)), here.content[PATTERN_AT:][:4096], "a read")
        handle.shutdown()
