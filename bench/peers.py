#!/usr/bin/python3
"""Compares millraced with other NBD servers and with fio on the storage itself.

bench/README.md says how to read the result; rounds.py in which order it is measured.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import clients  # noqa: E402 (the two lines above come first)
import loads  # noqa: E402
import measure  # noqa: E402
import memory_hold  # noqa: E402
import picture  # noqa: E402
import processes  # noqa: E402
import publish  # noqa: E402
import report  # noqa: E402
import rounds  # noqa: E402
import servers  # noqa: E402
from rounds import say  # noqa: E402


def cpu_set(text):
    """{0, 1, 2, 3, 8} of "0-3,8"."""
    cpus = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    if not cpus or not cpus <= os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"{text}: not all of these CPUs can be used here")
    return cpus


def row_list(text):
    """The rows named by "file-read-1,zram": a row's name, or a storage for all of its rows."""
    wanted = text.split(",")
    known = {row.name for row in loads.ROWS} | {row.storage for row in loads.ROWS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: no such row; there are "
                                         + ", ".join(row.name for row in loads.ROWS))
    return [row for row in loads.ROWS if row.name in wanted or row.storage in wanted]


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def positive_number(text):
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: must be 0.1 to 3600")
    return value


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compares millraced with its peers.")
    parser.add_argument("--daemon", default="build/millraced", help="millraced's path")
    parser.add_argument("--cores", help="passed on to millraced (default: its own choice)")
    parser.add_argument("--rounds", type=positive, help="rounds (default 5)")
    parser.add_argument("--seconds", type=positive_number, help="seconds per turn (default 3)")
    parser.add_argument("--minutes", type=float, metavar="N",
                        help="begin nothing that would not end within so many, in all; what is published says what was left out")
    parser.add_argument("--rows", type=row_list, default=row_list(",".join(loads.SHORT)), metavar="LIST",
                        help="rows to run: " + ", ".join(row.name for row in loads.ROWS)
                        + ", or file, xfs, cached, zram, memory, null for all of each (default: the few that say most)")
    parser.add_argument("--all", action="store_true", help="all rows")
    parser.add_argument("--clients", default="millrace-bench", metavar="LIST",
                        help="fio, millrace-bench (default), or both: then the second runs "
                        + ", ".join(loads.SECOND_CLIENT))
    parser.add_argument("--bench", default="build/millrace-bench", help="millrace-bench's path")
    parser.add_argument("--servers", metavar="LIST", help="servers to run (default: all)")
    parser.add_argument("--quick", action="store_true",
                        help="smoke run: 1 round of 1 s on small storage")
    parser.add_argument("--file-mib", type=positive, help="size of the file (default 1024)")
    parser.add_argument("--zram-mib", type=positive, help="size of the zram (default 512)")
    parser.add_argument("--work", default="build/bench-work",
                        help="folder for the file, on the disk to be measured")
    parser.add_argument("--syscalls", choices=("auto", "perf", "strace", "none"), default="auto",
                        help="what counts system calls (default: perf, else strace)")
    parser.add_argument("--client-cpus", type=cpu_set, metavar="LIST", help="the clients' CPUs")
    parser.add_argument("--server-cpus", metavar="LIST",
                        help="the servers' CPUs; also millraced's --cores if that is not given")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    parser.add_argument("--svg", metavar="FILE", help="draw the IOPS and the CPU per request there")
    parser.add_argument("--publish", action="store_true",
                        help="put the result into README.md, doc/peers.md and doc/peers.svg")
    arguments = parser.parse_args()
    small = arguments.quick
    if arguments.all:
        arguments.rows = loads.ROWS
    unknown = set(arguments.clients.split(",")) - {"fio", "millrace-bench"}
    if unknown:
        parser.error(f"--clients: {unknown.pop()}: there are fio and millrace-bench")
    arguments.rounds = arguments.rounds or (1 if small else 5)
    arguments.seconds = arguments.seconds or (1 if small else 3)
    arguments.file_mib = arguments.file_mib or (128 if small else 1024)
    arguments.zram_mib = arguments.zram_mib or (64 if small else 512)
    arguments.server_cpu_set = None
    if arguments.server_cpus:
        try:
            arguments.server_cpu_set = cpu_set(arguments.server_cpus)
        except (ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"--server-cpus: {error}")
        arguments.cores = arguments.cores or arguments.server_cpus
    return arguments


# What they name is of no interest to others.
FILE_OPTIONS = ("--json", "--markdown", "--svg", "--work", "--bench", "--daemon")


def check_outputs(arguments):
    """That what is measured can be written: afterwards would be late."""
    for path in filter(None, (arguments.markdown, arguments.json, arguments.svg)):
        existed = os.path.exists(path)
        try:
            with open(path, "a"):
                pass
        except OSError as error:
            sys.exit(f"bench: {path}: {error.strerror}")
        if not existed:
            os.unlink(path)


def check_client(arguments):
    if "millrace-bench" in arguments.clients.split(",") and not shutil.which(arguments.bench):
        sys.exit(f"bench: {arguments.bench}: not found; build it with ninja, or name it with --bench")


def check_fio():
    """fio says what the storage can do, and is a client itself."""
    if not shutil.which("fio"):
        sys.exit("bench: fio is not installed: apt-get install fio")
    engines = subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, timeout=10)
    for engine in ("nbd", "libaio"):
        if engine not in engines.stdout.split():
            sys.exit(f"bench: this fio has no {engine} engine: apt-get install fio")


def make_certificates(directory):
    """A certificate authority and a server's certificate, for the rows with TLS.  Returns the directory, or None."""
    if not shutil.which("certtool"):
        say("without TLS: certtool is not installed: apt-get install gnutls-bin")
        return None
    made = os.path.join(directory, "tls")
    os.makedirs(made, exist_ok=True)

    def certtool(*argv):
        subprocess.run(["certtool", *argv], cwd=made, check=True, capture_output=True, timeout=60)

    for name, lines in (("ca", "cn = bench\nca\ncert_signing_key\n"),
                        ("server", "cn = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\n"
                                   "signing_key\n")):
        with open(os.path.join(made, f"{name}.info"), "w") as info:
            info.write(lines + "expiration_days = 2\n")
        certtool("--generate-privkey", "--ecdsa", "--outfile", f"{name}-key.pem")
        if name == "ca":
            certtool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info", "--outfile",
                     "ca-cert.pem")
        else:
            certtool("--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem",
                     "--load-privkey", "server-key.pem", "--template", "server.info", "--outfile", "server-cert.pem")
    return made


def choose_servers(arguments):
    """The servers that are wanted and here, and what is not here."""
    everything = servers.all_servers(arguments.daemon, arguments.cores)
    if arguments.servers:
        wanted = arguments.servers.split(",")
        names = [server.name for server in everything]
        for name in wanted:
            if name not in names:
                sys.exit(f"bench: no server {name}; there are {', '.join(names)}")
        everything = [server for server in everything if server.name in wanted]
    missing = [f"without {server.missing()}" for server in everything if server.missing()]
    return [server for server in everything if not server.missing()], missing


def cpu_model():
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def command(argv):
    """What repeats the run: without the names of the files that it wrote to."""
    shown, named = [], False
    for word in argv:
        if not named and not word.startswith(FILE_OPTIONS):
            shown.append(word)
        named = word in FILE_OPTIONS
    return shlex.join(["bench/peers.py"] + shown)


def facts(run):
    """[(name, value)] of everything that a reader needs to repeat the run."""
    arguments = run.arguments
    placement = (f"clients on CPUs {sorted(arguments.client_cpus)}" if arguments.client_cpus
                 else "fio not pinned, millrace-bench on the last CPU")
    if arguments.client_cpus and "millrace-bench" in arguments.clients:
        placement += ", millrace-bench on as many of the last of them as it has connections"
    placement += (f", servers on CPUs {arguments.server_cpus}" if arguments.server_cpus
                  else ", servers not pinned by the bench")
    programs = [servers.version_of("fio"), servers.version_of(arguments.bench)]
    programs += dict.fromkeys(server.version() for server in run.servers)
    found = [
        ("machine", f"{cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}"),
        ("date", time.strftime("%Y-%m-%d", time.gmtime())),
        ("servers", ", ".join(server.name for server in run.servers if server.name not in (report.OURS, report.OURS_CACHED))),
        ("storage", "; ".join(f"{kind}: {text}" for kind, text in run.descriptions.items())),
        ("versions", "; ".join(programs)),
        ("command", "`" + command(sys.argv[1:]) + "`"),
        ("method", f"clients: {arguments.clients.replace(',', ', ')}; medians of {run.rounds_text()} interleaved rounds of "
         f"{arguments.seconds:g} s; {placement}"),
        ("system calls", run.tracer.name if run.tracer else "not counted"),
    ]
    for server in run.servers:
        storage_kind = next(kind for kind in ("file", "cached", "null") if kind in server.arguments)
        argv = server.argv(storage_kind, "IMAGE", "PORT")
        found.append((server.name, "`" + shlex.join([os.path.basename(argv[0])] + argv[1:]) + "`"))
    others = run.of_each_turn("other_cpus")
    if others:
        found.append(("other load", f"{sum(others) / len(others):.2f} CPUs on average, at most "
                      f"{max(others):.2f}, were busy with neither client nor server (the kernel's "
                      "own threads included)"))
    stolen = run.of_each_turn("stolen")
    if stolen:
        found.append(("stolen", f"{statistics.mean(stolen):.1%} of the CPU time that a turn wanted went to the host's others on average, at "
                      f"most {max(stolen):.0%}; {run.taken_again} turns that lost more than {rounds.STOLEN_MAX:.0%} were taken again"))
    return found


def write_json(path, run):
    with open(path, "w") as target:
        json.dump({"facts": dict(facts(run)), "results": run.results, "problems": run.problems},
                  target, indent=1)
        target.write("\n")


def print_results(run):
    for row in run.results:
        print(report.text_table(run.results, row) + "\n")
    for *_, met, sentence in report.aims(run.results):
        print(f"aim {'met' if met else 'MISSED'}: {sentence}")
    for name, value in facts(run):
        print(f"{name}: {value}")
    for problem in run.problems:
        print(f"problem: {problem}")


def remove_work(path):
    """Remove the bench's own files; a folder that holds something else stays."""
    for name in ("fio.json", "fio.log", "bench.json", "bench.log", "server.conf", "tls.conf", "server.log", "server.pid", "tracer.log", "memory.log"):
        if os.path.exists(os.path.join(path, name)):
            os.unlink(os.path.join(path, name))
    shutil.rmtree(os.path.join(path, "tls"), ignore_errors=True)
    try:
        os.rmdir(path)
    except OSError:
        pass


def main():
    arguments = parse_arguments()
    check_outputs(arguments)
    check_client(arguments)
    check_fio()
    chosen, missing = choose_servers(arguments)
    for what in missing:
        say(what)
    tracer, remark = measure.choose_tracer(arguments.syscalls)
    if remark:
        say(remark)
    processes.catch_ending_signals()
    os.makedirs(arguments.work, exist_ok=True)
    try:
        tls = make_certificates(arguments.work) if any(row.load.tls for row in arguments.rows) else None
        run = rounds.Run(arguments, chosen, tracer, tls)
        run.problems += missing
        if not tls and any(row.load.tls for row in arguments.rows):
            run.problems.append("without TLS")
        with contextlib.nullcontext() if arguments.quick else memory_hold.Held(arguments.work):
            run.measure()
    except KeyboardInterrupt:
        say("interrupted; everything it started is ended and removed")
        return 130
    finally:
        remove_work(arguments.work)
    print_results(run)
    write_results(arguments, run)
    return 130 if run.interrupted else 1 if run.problems else 0


def write_results(arguments, run):
    if arguments.markdown:
        with open(arguments.markdown, "w") as target:
            target.write(report.markdown(run.results, facts(run)))
    if arguments.json:
        write_json(arguments.json, run)
    if arguments.svg:
        with open(arguments.svg, "w") as target:
            target.write(picture.svg(run.results))
    if arguments.publish and run.results:
        publish.publish(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), run.results,
                        facts(run) + [("problem", problem) for problem in run.problems])


if __name__ == "__main__":
    sys.exit(main())
