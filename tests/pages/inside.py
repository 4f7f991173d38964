"""Runs in the container that tests/systemd/run.sh boots: the commands of the documentation, as the pages have them.

A page's blocks marked sh are run one after another by one bash, which stops at the first command that fails.  A block marked
text must be in the output of the sh block before it, line for line; "..." stands for any text within a line.  A block marked
yaml NAME is parsed, and written to NAME in the directory where the page runs; so are the files of a ConfigMap in it.  Blocks
marked console are for another machine, or need a network: they are not run.  /etc/millrace is where configure put it; that is
all that is replaced.

Output goes to /share/output, the last line to /share/counts.
"""

import os
import re
import shutil
import subprocess

import yaml

SYSCONFDIR = os.environ["SYSCONFDIR"]
PAGES = {
    "pages": (
        "doc/quick-start.md",
        "doc/recipes/vm-disk.md",
        "doc/recipes/backup.md",
        "doc/recipes/container-volume.md",
    ),
    "pages-boot": ("doc/recipes/diskless-boot.md",),
}[os.environ["PAGES"]]
SECONDS = {"pages": 40, "pages-boot": 180}[os.environ["PAGES"]]  # a page
FILES = "/share/files"  # what a page has from elsewhere
STATE = "/var/lib/millrace"
CONFIGURATION = f"{SYSCONFDIR}/millrace"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Failure(Exception):
    """A page says what is not so."""


def blocks_of(page):
    with open(f"/share/{page}", encoding="utf-8") as file:
        text = file.read()
    found = BLOCK.findall(text)
    if text.count("\n```") != 2 * len(found):
        raise Failure("a block without a mark, or not closed")
    return [(kind, name, body.replace("/etc/millrace", CONFIGURATION)) for kind, name, body in found]


def write_yaml(directory, name, body):
    with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
        file.write(body)
    for document in yaml.safe_load_all(body):
        for key in ("apiVersion", "kind", "metadata"):
            if key not in document:
                raise Failure(f"{name}: a document without {key}")
        if document["kind"] == "ConfigMap":
            for entry, content in document["data"].items():
                with open(f"{directory}/{entry}", "w", encoding="utf-8") as file:
                    file.write(content)


def script_of(blocks, directory):
    """The page as one script, in which each block's output goes to a file of its own."""
    lines = ["set -euo pipefail", f"cd {directory}"]
    for index, (kind, _, body) in enumerate(blocks):
        if kind == "sh":
            lines.append(f"exec >{directory}/.out{index} 2>&1")
            lines.append("set -x" if not body.startswith("set -x") else "")
            lines.append(body)
            lines.append("{ set +x; } 2>/dev/null")
    return "\n".join(lines) + "\n"


def output_of(directory, index):
    path = f"{directory}/.out{index}"
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def check_texts(blocks, directory):
    before = None
    for index, (kind, _, body) in enumerate(blocks):
        if kind == "sh":
            before = index
        elif kind == "text":
            said = [line for line in output_of(directory, before).splitlines() if not line.startswith("+")]
            for line in filter(None, map(str.strip, body.splitlines())):
                pattern = ".*".join(re.escape(part) for part in line.split("..."))
                if not any(re.fullmatch(pattern, other.strip()) for other in said):
                    raise Failure(f"the page says '{line}', which is not in:\n" + "\n".join(said))


def fresh_machine():
    """As after the installation: nothing runs, no export, the configuration as it comes."""
    subprocess.run(["systemctl", "stop", "millrace.socket", "millrace.service"], check=False)
    subprocess.run(["systemctl", "reset-failed"], check=False)
    for name in os.listdir(STATE):
        path = f"{STATE}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    shutil.rmtree(CONFIGURATION)
    shutil.copytree("/share/installed", CONFIGURATION)


def run_page(page):
    directory = f"/root/{os.path.basename(page)}.d"
    os.makedirs(directory)
    if os.path.isdir(FILES):
        shutil.copytree(FILES, directory, dirs_exist_ok=True)
    blocks = blocks_of(page)
    if not any(kind == "sh" for kind, _, _ in blocks):
        raise Failure("no command is run")
    for kind, name, body in blocks:
        if kind not in ("sh", "text", "yaml", "console"):
            raise Failure(f"a block marked {kind}")
        if kind == "yaml":
            write_yaml(directory, name, body)
    result = subprocess.run(
        ["timeout", str(SECONDS), "bash", "-c", script_of(blocks, directory)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "HOME": "/root", "PATH": f"{os.environ['PATH']}:/usr/local/bin:/usr/sbin:/sbin"},
    )
    if result.returncode != 0:
        said = "".join(output_of(directory, index) for index in range(len(blocks)))
        log = subprocess.run(["journalctl", "-u", "millrace", "-o", "cat", "-n", "15"], capture_output=True, text=True, check=False)
        raise Failure(f"exit {result.returncode}:\n{said}\nthe journal:\n{log.stdout}")
    check_texts(blocks, directory)


def main():
    passed = failed = 0
    shutil.copytree(CONFIGURATION, "/share/installed")
    with open("/share/output", "w", encoding="utf-8") as output:
        for page in PAGES:
            try:
                fresh_machine()
                run_page(page)
                passed += 1
                print(f"ok   {page}", file=output, flush=True)
            except (Failure, OSError, subprocess.SubprocessError, yaml.YAMLError) as error:
                failed += 1
                print(f"FAIL {page}", *str(error).splitlines(), sep="\n     | ", file=output, flush=True)
        line = f"{passed} passed, {failed} failed"
        print(line, file=output)
    with open("/share/counts", "w", encoding="utf-8") as file:
        file.write(line + "\n")


main()
