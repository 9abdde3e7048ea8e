"""Local processes: they continue without their launcher, are started once, are adopted, and end with all their
children.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.kit import ROOT, wait_for
from vasevqa.artifacts.lease import process_start
from vasevqa.backends.base import State, Task
from vasevqa.backends.local import supervisor
from vasevqa.backends.local.backend import LocalBackend
from vasevqa.spec import Resources

KEY = "0123456789abcdef"


class Stages:
    """Turns small programs into stages, and records which processes must not be left running."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.backend = LocalBackend(root / "volume")
        self.pids: list[int] = []

    def task(self, program: str, attempt: int = 1, **resources: float) -> Task:
        (self.root / "program.py").write_text(textwrap.dedent(program))
        given = Resources.model_validate(resources)
        return Task(
            "run-1",
            "step",
            "program",
            KEY,
            attempt,
            (),
            given,
            self.root / "volume",
            self.root / f"log-{attempt}.txt",
            {"PYTHONPATH": str(self.root)},
        )

    def new_backend(self) -> LocalBackend:
        """Return a backend like that of another launcher."""
        return LocalBackend(self.root / "volume", {"program": "program"})

    def claim(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.root / "volume/.jobs" / name / "claim.json").read_text())
        return found


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    made = Stages(tmp_path)
    made.backend = made.new_backend()
    yield made
    for name in made.backend.existing("vase-"):
        made.backend.cancel(name, 0)
        wait_for(lambda name=name: made.backend.state(name).is_terminal, f"{name} to end")


def finish(backend: LocalBackend, name: str) -> str:
    """Watch the job until it ends, and return everything that it printed."""
    text = ""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for update in backend.watch([name], 1):
            text += update.text
            if update.state.is_terminal:
                return text
    raise AssertionError(f"{name} never ended")


def test_a_stage_gets_its_environment_and_its_exit_code_is_recorded(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    task = stages.task(
        """
        import os, sys
        names = ("VASEVQA_GPUS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HOME", "HF_HUB_OFFLINE")
        print(*(f"{name}={os.environ.get(name)}" for name in names))
        print("to stderr", file=sys.stderr)
        sys.stdout.write("no line end")
        sys.exit(3)
        """,
        cpus=1,
        gpus=2,
    )
    assert task.name == "vase-step-0123456789-1"
    stages.backend.submit(task)
    text = finish(stages.backend, task.name)
    assert (
        f"VASEVQA_GPUS=2 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HOME={stages.root}/volume/.cache/huggingface"
        " HF_HUB_OFFLINE=None" in text
    )
    assert "to stderr" in text
    assert text.endswith("no line end")
    assert task.log.read_text() == text
    outcome = stages.backend.outcome(task.name)
    assert (outcome.exit_code, outcome.signal, outcome.oom) == (3, None, False)
    assert stages.backend.state(task.name) is State.FINISHED
    stages.backend.remove(task.name)
    assert stages.backend.existing("vase-") == []
    assert stages.backend.state(task.name) is State.GONE
    assert task.log.exists()


def test_hub_downloads_are_off_for_a_step_without_hub_inputs(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    program = "import os; print(os.environ.get('HF_HUB_OFFLINE'))"
    task = stages.task(program)
    offline = Task(**{**vars(task), "offline": True})
    stages.backend.submit(offline)
    assert finish(stages.backend, task.name) == "1\n"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    again = Task(**{**vars(stages.task(program, attempt=2)), "offline": True})
    stages.backend.submit(again)
    assert finish(stages.backend, again.name) == "0\n"


def test_signals_and_exit_codes_are_distinguished(stages: Stages) -> None:
    task = stages.task("import os, signal; os.kill(os.getpid(), signal.SIGBUS)")
    stages.backend.submit(task)
    finish(stages.backend, task.name)
    assert (stages.backend.outcome(task.name).exit_code, stages.backend.outcome(task.name).signal) == (
        None,
        signal.SIGBUS,
    )


def test_many_launchers_that_submit_one_job_start_one_process(stages: Stages) -> None:
    task = stages.task(f"open({str(stages.root / 'count')!r}, 'a').write('x')")
    barrier = threading.Barrier(6)

    def submit() -> None:
        backend = stages.new_backend()
        barrier.wait()
        backend.submit(task)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(stages.backend, task.name)
    assert (stages.root / "count").read_text() == "x"
    assert [entry.name for entry in (stages.root / "volume/.jobs").iterdir()] == [task.name]


def test_a_stage_continues_without_its_launcher_and_the_next_launcher_gets_its_outcome(stages: Stages) -> None:
    task = stages.task(f"""
        import sys, time
        from pathlib import Path
        print("begins", flush=True)
        while not Path({str(stages.root / "go")!r}).exists():
            time.sleep(0.01)
        print("ends")
        sys.exit(6)
        """)
    launcher = f"""
        import pickle, sys, time
        from pathlib import Path
        from vasevqa.backends.local.backend import LocalBackend
        backend = LocalBackend(Path({str(stages.root / "volume")!r}), {{"program": "program"}})
        backend.submit(pickle.load(sys.stdin.buffer))
        print("submitted", flush=True)
        time.sleep(600)
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(launcher)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps(task))
        process.stdin.close()
        assert process.stdout.readline() == b"submitted\n"
        process.kill()
    assert stages.backend.existing("vase-step-") == [task.name]
    assert stages.backend.state(task.name) is State.RUNNING
    assert stages.backend.owner(task.name) == "run-1"
    wait_for(task.log.read_text, "the stage to begin")
    (stages.root / "go").touch()
    assert finish(stages.backend, task.name) == "begins\nends\n"
    assert stages.backend.outcome(task.name).exit_code == 6


STUBBORN = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    while True:
        time.sleep(600)
    """


def child_of(log: Path) -> int:
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"), "the stage to begin")
    return int(log.read_text().splitlines()[0])


def gone(pid: int) -> bool:
    return process_start(pid) is None


def test_cancel_sends_sigterm_and_then_kills_the_stage_and_its_children(stages: Stages) -> None:
    task = stages.task(STUBBORN)
    stages.backend.submit(task)
    child = child_of(task.log)
    stages.backend.cancel(task.name, 600)
    wait_for(lambda: "asked" in task.log.read_text(), "the stage to get SIGTERM")
    assert stages.backend.state(task.name) is State.RUNNING
    stages.new_backend().cancel(task.name, 0)  # a second request, from another process, with a shorter grace period
    finish(stages.backend, task.name)
    assert stages.backend.outcome(task.name).signal == signal.SIGKILL
    wait_for(lambda: gone(child), "the stage's child process to end")


def test_children_of_a_stage_end_with_the_stage(stages: Stages) -> None:
    task = stages.task(
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    stages.backend.submit(task)
    finish(stages.backend, task.name)
    assert stages.backend.outcome(task.name).exit_code == 0
    wait_for(lambda: gone(child_of(task.log)), "the stage's child process to end")


def test_killing_the_supervisor_also_kills_the_stage(stages: Stages) -> None:
    task = stages.task("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    stages.backend.submit(task)
    stage = child_of(task.log)
    os.kill(int(str(stages.claim(task.name)["pid"])), signal.SIGKILL)
    finish(stages.backend, task.name)
    assert stages.backend.outcome(task.name).signal == signal.SIGKILL
    assert "vanished" in stages.backend.outcome(task.name).message
    wait_for(lambda: gone(stage), "the stage to end")


def test_output_that_was_read_is_not_lost_if_another_job_can_not_be_read(stages: Stages) -> None:
    first, second = stages.task("print('hello')"), stages.task("print('hello')", attempt=2)
    for task in (first, second):
        stages.backend.submit(task)
        wait_for(lambda name=task.name: stages.backend.state(name).is_terminal, f"{task.name} to end")
    spec = stages.root / "volume/.jobs" / second.name / "exit"
    content = spec.read_bytes()
    spec.unlink()
    spec.mkdir()  # reading the file of the second job now fails
    [update] = stages.backend.watch([first.name, second.name], 1)
    assert (update.name, update.text) == (first.name, "hello\n")
    with pytest.raises(IsADirectoryError):
        stages.backend.watch([second.name], 1)
    spec.rmdir()
    spec.write_bytes(content)
    assert finish(stages.backend, second.name) == "hello\n"


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 75), (errno.ENOMEM, 71), (errno.ENOENT, 126)])
def test_a_command_that_can_not_be_started_has_the_exit_code_of_its_reason(
    stages: Stages, number: int, code: int
) -> None:
    job = stages.root / "volume/.jobs/vase-step-0123456789-1"
    job.mkdir(parents=True)
    record = {"exit_code": 126, "signal": None, "message": "it can't be started", "errno": number}
    (job / "exit").write_text(json.dumps(record))
    assert stages.backend.outcome(job.name).exit_code == code


def test_the_next_launcher_starts_a_job_that_a_killed_launcher_did_not_start(stages: Stages) -> None:
    task = stages.task("print('hello')")
    program = (
        "import pickle, sys; from pathlib import Path; from vasevqa.backends.local.backend import LocalBackend; task ="
        " pickle.load(sys.stdin.buffer)"
    )
    program += "; LocalBackend(task.volume, {'program': 'program'}).submit(task)"
    killed = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(task),
        cwd=ROOT,
        env={**os.environ, "VASEVQA_FAULT": "in-submit"},
    )
    assert killed.returncode == -signal.SIGKILL
    assert stages.backend.state(task.name) is State.PENDING
    assert finish(stages.backend, task.name) == "hello\n"


def test_cancelling_a_job_before_its_start_ends_it_without_running_it(stages: Stages) -> None:
    task = stages.task("print('hello')")
    stages.backend._start = lambda job: (_ for _ in ()).throw(OSError("killed here"))  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="killed here"):
        stages.backend.submit(task)
    backend = stages.new_backend()
    backend.cancel(task.name, 5)
    assert finish(backend, task.name) == ""
    assert backend.outcome(task.name).signal == signal.SIGTERM


def test_a_job_on_a_silent_machine_is_gone_only_after_the_ttl(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    task = stages.task("import time; time.sleep(600)")
    stages.backend.submit(task)
    claim = stages.root / "volume/.jobs" / task.name / "claim.json"
    mine = claim.read_text()
    claim.write_text(mine.replace('"boot": "', '"boot": "elsewhere-'))
    assert stages.backend.state(task.name) is State.RUNNING
    past = claim.stat().st_mtime - 1000
    os.utime(claim, (past, past))
    assert stages.backend.state(task.name) is State.GONE
    monkeypatch.setenv("VASEVQA_LEASE_TTL", "2000")
    assert stages.backend.state(task.name) is State.RUNNING
    claim.write_text(mine)


def test_a_reused_process_id_is_not_taken_for_the_job(stages: Stages) -> None:
    task = stages.task("import time; time.sleep(600)")
    stages.backend.submit(task)
    claim = stages.root / "volume/.jobs" / task.name / "claim.json"
    mine = json.loads(claim.read_text())
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        claim.write_text(json.dumps({**mine, "pid": stranger.pid}))
        assert stages.backend.state(task.name) is State.FINISHED
        stages.backend.cancel(task.name, 0)
        assert stranger.poll() is None
        stranger.kill()
    claim.write_text(json.dumps(mine))


def test_attempts_are_listed_in_their_order(stages: Stages) -> None:
    for attempt in (10, 9, 1):
        task = stages.task("pass", attempt=attempt)
        stages.backend.submit(task)
        finish(stages.backend, task.name)
    assert [name.rpartition("-")[2] for name in stages.backend.existing("vase-step-0123456789-")] == ["1", "9", "10"]
    assert stages.backend.existing("vase-other-") == []


def test_a_job_has_one_claim_on_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(supervisor.os, "link", refuse)
    assert supervisor.claim(tmp_path, {"host": "here"})
    assert not supervisor.claim(tmp_path, {"host": "there"})
    assert json.loads((tmp_path / "claim.json").read_text())["host"] == "here"
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


def test_an_incomplete_claim_expires(stages: Stages) -> None:
    job = stages.root / "volume/.jobs/vase-step-0123456789-1"
    job.mkdir(parents=True)
    (job / "spec.json").write_text("{}")
    (job / "claim.json").write_text("{half")
    assert stages.backend.state(job.name) is State.RUNNING
    past = (job / "claim.json").stat().st_mtime - 1000
    os.utime(job / "claim.json", (past, past))
    assert stages.backend.state(job.name) is State.GONE
