"""Run one stage as a child process, and record how the stage ended in a file that any launcher can read.

A launcher calls `python -I -S supervisor.py JOB IDENTITY`. The module imports only the standard library, so the
supervisor starts in milliseconds. JOB is a folder with spec.json. The supervisor that creates JOB/claim.json runs the
job; any other supervisor ends. If JOB/cancel appears, the stage gets SIGTERM. JOB/cancel contains a number of seconds,
after which the stage's process group gets SIGKILL.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RECORD_BYTES = 256
POLL = 1.0  # seconds between two checks for JOB/cancel; a signal causes a check at once
WAKE = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)
GRACE = 30.0
PR_SET_PDEATHSIG = 1
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # file systems without hard links


def claim(job: Path, identity: "dict[str, object]") -> bool:
    """Claim the job for this process; return False if another supervisor has already claimed the job."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    text = json.dumps({**identity, "pid": os.getpid(), "started": started})
    fresh = job / f"claim.{os.getpid()}.{os.urandom(3).hex()}"
    fresh.write_text(text)
    try:
        os.link(fresh, job / "claim.json")
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with open(job / "claim.json", "x") as stream:  # also exclusive, but not atomic
                stream.write(text)
        except FileExistsError:
            return False
    finally:
        fresh.unlink()
    return True


def die_with_supervisor() -> None:
    """In the child, unblock signals, and tell the kernel to kill the child when the supervisor dies."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.getppid() != parent:
        os._exit(137)


def oom_kills() -> int:
    """Return how many processes the kernel's out-of-memory killer has killed since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def asked_to_stop(job: Path) -> float | None:
    """Return the grace period in seconds if JOB/cancel exists. Otherwise return None."""
    try:
        return float((job / "cancel").read_text())
    except ValueError:
        return GRACE
    except OSError:  # the file does not exist, or the storage fails for a moment; neither is a request to stop
        return None


def attend(child: "subprocess.Popen[bytes]", job: Path, beat: float) -> None:
    """Wait until `child` has ended, stop it on request, and touch claim.json every `beat` seconds.

    This function does not reap the child, so the id of the child's process group can't be reused.
    """
    kill_at: float | None = None
    beaten = time.monotonic()
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        got = signal.sigtimedwait(WAKE, POLL)
        grace = GRACE if got is not None and got.si_signo == signal.SIGTERM else asked_to_stop(job)
        now = time.monotonic()
        if grace is not None:
            if kill_at is None:
                os.kill(child.pid, signal.SIGTERM)
            kill_at = min(now + grace, kill_at or now + grace)
            if now >= kill_at:
                os.killpg(child.pid, signal.SIGKILL)
        elif kill_at is not None and now >= kill_at:
            os.killpg(child.pid, signal.SIGKILL)
        if now - beaten >= beat:  # shows launchers on other machines that this supervisor runs
            beaten = now
            with contextlib.suppress(OSError):
                os.utime(job / "claim.json")


def run(spec: "dict[str, object]", job: Path) -> "dict[str, object]":
    """Run the job's command, and return a record of its end.

    The record contains the exit code or signal, and whether the kernel killed the command because memory ran out.
    """
    before = oom_kills()
    try:
        with open(str(spec["log"]), "ab") as output:
            child = subprocess.Popen(
                spec["command"],  # type: ignore[call-overload]
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_supervisor,  # noqa: PLW1509 - there are no threads here
            )
    except OSError as error:
        message = f"it can't be started: {error.strerror}"
        return {"exit_code": 126, "signal": None, "message": message, "errno": error.errno}
    attend(child, job, float(str(spec["beat"])))
    with contextlib.suppress(OSError):
        os.killpg(
            child.pid, signal.SIGKILL
        )  # kill the processes that the stage left running, as the end of a container does
    code = child.wait()
    oom = code == -signal.SIGKILL and oom_kills() > before
    return {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None, "oom": oom}


def main(job: Path, identity: "dict[str, object]") -> None:
    """Claim and run the job; write the output to the log and the outcome to JOB/exit."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
    spec = json.loads((job / "spec.json").read_text())
    if not claim(job, identity):
        return
    # Reserve the space now and overwrite it at the end. The outcome can then be written even if the disk is full.
    with open(job / "exit", "wb") as stream:
        stream.write(b" " * RECORD_BYTES)
    stopped = {"exit_code": None, "signal": signal.SIGTERM, "message": "it was stopped before it began"}
    record = json.dumps(run(spec, job) if asked_to_stop(job) is None else stopped)
    # The file is missing if a launcher found the job dead and removed the job's folder.
    with contextlib.suppress(FileNotFoundError), open(job / "exit", "r+b") as stream:
        stream.write(record.encode().ljust(RECORD_BYTES))
        stream.flush()
        os.fsync(stream.fileno())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except OSError as problem:
        print(f"The job {sys.argv[1]} could not be supervised: {problem}.", file=sys.stderr)
        sys.exit(problem.errno or 1)  # the launcher decides by the errno whether a retry can help
