"""Attempts at a cell: which process trains it, whether it is alive, and how the attempt ended.

An attempt is a folder attempts/<number>, made under another name and renamed: whoever succeeds owns
the cell until the attempt is over. Nothing relies on locks or on equal clocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmark.messages import one_line
from benchmark.run_folder import links
from benchmark.run_folder.files import examine, read_bytes, read_json, write_json
from benchmark.run_folder.files import folder_of as folder_of
from benchmark.run_folder.result import result_of

STALE_SECONDS = 60.0
BEAT_SECONDS = 5.0
TURN_SECONDS = 0.05
NAME = re.compile(r"[0-9]{4}|[1-9][0-9]{4,8}")
GENERATION = re.compile(r"checkpoint-([0-9]{10,15})\.(pt|json)")
CODES = range(256)
END = {"status": str, "error": str, "code?": int}
OWNER = {"boot": str, "pid": int, "started": (int, None), "job?": str, "restarts?": int}


def numbers(cell: Path) -> list[int]:
    """Numbers of a cell's attempts, in order."""
    return _numbers(_named(cell))


def _numbers(named: Iterable[os.DirEntry[str]]) -> list[int]:
    return sorted(int(entry.name) for entry in named if entry.is_dir(follow_symlinks=False))


def _named(cell: Path) -> list[os.DirEntry[str]]:
    """What is named like an attempt."""
    return [entry for entry in _entries(cell / "attempts") if NAME.fullmatch(entry.name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing if it is no folder."""
    try:
        return list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def steps_saved(attempt: Path) -> list[int]:
    """Generations of checkpoints in an attempt, oldest first; one of their two files is enough."""
    found = (GENERATION.fullmatch(entry.name) for entry in _entries(attempt))
    return sorted({int(match[1]) for match in found if match})


def strays(cell: Path) -> list[str]:
    """One line for each file that lies where attempts and checkpoints do and is none."""
    inside = [entry for number in numbers(cell) for entry in _entries(folder_of(cell, number))]
    found = [entry.path for entry in _entries(cell / "attempts") if not NAME.fullmatch(entry.name)]
    found += [entry.path for entry in _named(cell) if not entry.is_dir(follow_symlinks=False)]
    found += [e.path for e in inside if e.name.startswith("checkpoint-") and not GENERATION.fullmatch(e.name)]
    return [f"{path} is not a file of ours and is left alone" for path in found if not Path(path).name.startswith(".")]


class Attempt:
    """One attempt of this process: a heartbeat while it is alive, and at last how it ended."""

    def __init__(self, cell: Path, number: int) -> None:
        self.cell, self.number = cell, number
        self.folder = folder_of(cell, number)
        self.superseded = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(BEAT_SECONDS if count else 0):
            with contextlib.suppress(OSError):  # the next beat may reach a file server that does not answer now
                _overwrite(self.folder / "heartbeat", f"{count:012d}\n".encode())
            with contextlib.suppress(OSError):
                if not self.newest():
                    self.superseded.set()
            count += 1

    def newest(self) -> bool:
        """False once another worker has taken the cell over."""
        return numbers(self.cell)[-1:] == [self.number]

    def end(self, status: str, error: str = "", code: int | None = None) -> None:
        """End the attempt.

        status: done, diverged, failed, cancelled, interrupted or superseded. error: one line, its
        cause. code: the exit code, if the user has something to fix.
        """
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # on a full disk the attempt becomes stale by itself
            end = {"status": status, "error": error, **({} if code is None else {"code": code})}
            write_json(self.folder / "end.json", end)


def _overwrite(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(descriptor, content, 0)
    finally:
        os.close(descriptor)


def check_own_folder(cell: Path) -> None:
    """Raises FolderError if the cell's folder or its attempts are links, also to another cell's."""
    links.refuse(cell, cell / "attempts")


def claim(cell: Path, observer: Observer) -> Attempt | None:
    """A new attempt at the cell; None if another attempt is active or the cell has a result.

    Raises FolderError if the cell's folder or its attempts are links.
    """
    check_own_folder(cell)
    named = _named(cell)  # looked at once: an attempt that begins from here on takes the same number
    attempts = _numbers(named)
    if attempts and not observer.over(folder_of(cell, attempts[-1])):
        return None
    if result_of(cell) is not None:  # an attempt publishes before it ends
        return None
    number = 1 + max((int(entry.name) for entry in named), default=0)
    if not NAME.fullmatch(folder_of(cell, number).name):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder_of(cell, number)))
    (cell / "attempts").mkdir(parents=True, exist_ok=True)
    aside = cell / "attempts" / f".{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        write_json(aside / "owner.json", own_process())
        aside.rename(folder_of(cell, number))
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) or folder_of(cell, number).exists():
            return None
        raise
    return Attempt(cell, number)


def _pause() -> None:
    time.sleep(TURN_SECONDS)


@contextlib.contextmanager
def turn(place: Path, *, wait: Callable[[], None] = _pause) -> Iterator[Attempt]:
    """One process at a time in here, on any file system and machine, for work of seconds.

    The rules are those of attempts at a cell: dead ones do not count. wait: called between two tries.
    """
    observer = Observer()
    while (own := claim(place, observer)) is None or not own.newest():
        if own is not None:  # its number was removed a moment ago, and a later one is at work
            own.end("superseded")
        wait()
    try:
        for number in numbers(place):
            if number < own.number:
                shutil.rmtree(folder_of(place, number), ignore_errors=True)
        yield own
    finally:
        own.end("done")


class Observer:
    """Watches other processes' attempts with this process's own monotonic clock.

    dead_jobs: cluster jobs that are known to have ended, and all their processes with them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, dead_jobs: Collection[str] = ()) -> None:
        self._clock, self.dead_jobs = clock, set(dead_jobs)
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def over(self, attempt: Path) -> bool:
        """Whether it ended, its process is gone, or its heartbeat stopped STALE_SECONDS ago."""
        if os.path.lexists(attempt / "end.json") or gone(attempt) or self._job_over(attempt):
            return True
        try:
            beat = read_bytes(attempt / "heartbeat")
        except (FileNotFoundError, ValueError):
            beat = b""
        last, since = self._seen.get(attempt, (None, 0.0))
        if beat != last:
            self._seen[attempt] = (beat, self._clock())
            return False
        return self._clock() - since >= STALE_SECONDS

    def _job_over(self, attempt: Path) -> bool:
        """Whether its cluster job has ended, or was requeued and is now this process's."""
        owner = read_json(attempt / "owner.json", OWNER) or {}
        job, restarts = owner.get("job"), owner.get("restarts", 0)
        mine, now = cluster_job()
        return job is not None and (job in self.dead_jobs or (job == mine and restarts < now))


def ended(attempt: Path) -> dict[str, Any] | None:
    """{status, error} that an attempt wrote at its end, with `code` if any; None without an end."""
    end = read_json(attempt / "end.json", END)
    if end is None or end.get("code", 0) not in CODES:
        return None
    return {**end, "error": one_line(end["error"])}


def damage(attempt: Path) -> str:
    """One line about an attempt's first file that is damaged, or empty."""
    return next(filter(None, (examine(attempt / f"{n}.json", s)[1] for n, s in (("end", END), ("owner", OWNER)))), "")


def gone(attempt: Path) -> bool:
    """Whether the attempt's process ran on this boot and no longer runs."""
    owner = read_json(attempt / "owner.json", OWNER)
    known = owner is not None and owner["boot"] != "" and owner["boot"] == _boot()
    return known and _started(owner["pid"]) != owner["started"]


def job_of(attempt: Path) -> str | None:
    """The cluster job whose process owns the attempt, if any."""
    owner = read_json(attempt / "owner.json", OWNER) or {}
    return owner.get("job")


def failed_before(cell: Path) -> str | None:
    """The error of a cell's last attempt if that failed, else None."""
    attempts = numbers(cell)
    end = ended(folder_of(cell, attempts[-1])) if attempts else None
    return str(end["error"]) if end is not None and end["status"] == "failed" else None


def mark_ended(cell: Path, error: str, *, status: str = "failed", dead_jobs: Collection[str] = ()) -> None:
    """Add a failed or cancelled attempt to a cell whose workers have died.

    Does nothing if another worker has the cell.
    """
    if (attempt := claim(cell, Observer(dead_jobs=dead_jobs))) is not None:
        attempt.end(status, error)


def own_process() -> dict[str, Any]:
    process = {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}
    job, restarts = cluster_job()
    return process if job is None else {**process, "job": job, "restarts": restarts}


def cluster_job() -> tuple[str | None, int]:
    """This process's SLURM job as squeue names it, and how often it was requeued.

    (None, 0) outside SLURM.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return job, int(restarts) if re.fullmatch(r"[0-9]{1,9}", restarts) else 0


def _boot() -> str:
    """This boot and process namespace; empty if the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
