"""Worlds of processes, for the interop tests of every stack: each in a directory and a process group of its own, and ended again.

Nothing listens on a fixed port, nothing leaves loopback. Waiting means looking at a condition until it holds or its deadline
passes, and a test that fails shows the log of every process.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time

import psutil

LOOK_EVERY_S = 0.1
# For what takes seconds on an idle machine: generous, for it is only ever waited out when something is wrong.
DEADLINE_S = float(os.environ.get("SHEAF_INTEROP_DEADLINE_S", "180"))
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Makes this process the parent of what its children leave behind, so that it can be found and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def wait_for(what, condition, deadline_s=None, look_every_s=LOOK_EVERY_S):
    """Looks until `condition()` is true and gives what it gave."""
    deadline_s = deadline_s or DEADLINE_S
    end_s = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(look_every_s)
    return found


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment(bin_dir, home, **more):
    """All that a process gets: no proxy but one it is told of, no credentials, one thread for each library that would take more."""
    return {
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
        "LANG": "C.UTF-8",
        **more,
    }


class Program:
    """A process with its log. `name` is unique in its world and names the log."""

    def __init__(self, world, name, command, **environ):
        self.world, self.name, self.command, self.environ = world, name, [str(part) for part in command], environ
        self.log = world.directory / f"{name}.log"
        self.home = world.directory / name
        self.process = None
        world.programs.append(self)

    def environment(self):
        """All that the process gets."""
        raise NotImplementedError

    def start(self):
        self.home.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"--- {' '.join(self.command)}\n".encode())
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=self.environment(),
                start_new_session=True,
            )
        return self

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_log(self, pattern, deadline_s=None):
        return wait_for(f"{pattern!r} in {self.log.name}", lambda: re.search(pattern, self.text()), deadline_s)

    def descendants(self):
        """What it started, and what that started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number):
        if self.alive():
            os.kill(self.process.pid, number)

    def kill9(self):
        self.signal(signal.SIGKILL)
        return self.process.wait()

    def stop(self, deadline_s=30):
        """Asks it to end; gives the exit code, or None when it had to be killed."""
        self.signal(signal.SIGINT)
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill9()
            return None


class World:
    """The processes of one test. Leaving it ends them all, and what they started."""

    # Lines that say nothing about a failure.
    uninteresting = re.compile(r"\A\Z")

    def __init__(self, directory):
        adopt_orphans()
        self.directory = directory
        self.programs = []
        self.closers = []
        self._strangers = {child.pid for child in psutil.Process().children()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            if program.process:
                program.kill9()
        for close in self.closers:
            close()
        wait_for("the end of every process", self._end_orphans, 60)

    def _end_orphans(self):
        """Kills what ended processes left to this one; true when nothing is left."""
        left = [child for child in psutil.Process().children(recursive=True) if child.pid not in self._strangers]
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        for child in left:
            with contextlib.suppress(ChildProcessError, psutil.NoSuchProcess):
                os.waitpid(child.pid, os.WNOHANG)
        return not left

    def processes(self, command):
        """Live processes below this one whose command line holds `command`."""
        found = []
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if child.status() != psutil.STATUS_ZOMBIE and any(command in part for part in child.cmdline()):
                    found.append(child)
        return found

    def logs(self, lines=60):
        """The end of every log."""
        parts = []
        for program in self.programs:
            text = program.text().splitlines() if program.log.exists() else []
            tail = [line for line in text if not self.uninteresting.search(line)][-lines:]
            state = "not started" if not program.process else f"exit {program.process.poll()}"
            parts += [f"==== {program.name} ({state}): {program.log}", *tail]
        return "\n".join(parts)


def write_peers(terminalreporter, server):
    """The table of stock peers, from the tests that ran and whose reports name some."""
    rows = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for peer in getattr(report, "peers", []):
                rows.setdefault(peer, {"passed": 0, "failed": 0})[outcome] += 1
    if rows:
        terminalreporter.section(f"stock peers of {server}")
        terminalreporter.write_line("| peer | tests passed | tests failed |")
        terminalreporter.write_line("| --- | --- | --- |")
        for peer, counts in sorted(rows.items()):
            terminalreporter.write_line(f"| {peer} | {counts['passed']} | {counts['failed']} |")
