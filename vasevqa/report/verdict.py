"""Summarize a run in a few sentences: its result, the cause of a failure, and the commands to run next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath

from vasevqa.evaluation.figures import Evaluation, ModelEvaluation
from vasevqa.pipeline.events import Event, parse
from vasevqa.pipeline.history import StepHistory
from vasevqa.pipeline.runs import ENDS, Run
from vasevqa.report.quality import Choice
from vasevqa.report.timeline import LONG
from vasevqa.text import duration, percent

TAIL_LINES = 40
TAIL_BYTES = 64 << 10  # bytes at the end of a log that are read
DONE = ("done", "up to date")
MODELS = ("merge-grpo", "merge-sft")  # the steps whose artifact is a model, the last one first
TRAININGS = ("sft", "grpo")
NO_MODEL = "The recipe evaluates no model."
BLIND = " without picture"  # ends the name of a model that was asked without the picture
AGAIN = "Then run it again: finished steps are not repeated."
REMEDIES = {
    1: "This is a bug in a stage. Report it with the log; the partial output is kept.",
    2: f"Correct the flag or the recipe's line that the message names. {AGAIN}",
    3: f"Correct the file or folder that the message names. {AGAIN}",
    4: f"Use a larger GPU, or lower max_pixels or max_length. {AGAIN}",
    5: "Set `device: cpu` to run without a GPU, or choose a machine that has the device.",
    6: "Compare the measured values in the message with the gate. For a merge, check that the adapter was trained on"
    " this base.",
    69: f"Do what the message says about Docker or the cluster. {AGAIN}",
    74: f"Free space with `vasevqa clean`, or check the mount. Finished artifacts are intact. {AGAIN}",
    135: f"Raise the step's `shm`, or lower its workers. {AGAIN}",
    137: f"Lower the step's batch size or workers, or raise its `memory_limit`. {AGAIN}",
}
RESUME = "Run it again: it resumes, and finished steps are not repeated."


@dataclass(frozen=True)
class Command:
    """A command that the reader can copy, and its purpose."""

    purpose: str
    words: str


@dataclass(frozen=True)
class Trouble:
    """Why a run failed: the step, its message, the remedy, and the last lines of its log."""

    step: str
    message: str
    remedy: str
    log: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The summary of a run. `trouble` is None unless the run failed."""

    state: str
    headline: str
    when: str
    sentences: tuple[str, ...]
    trouble: Trouble | None
    commands: tuple[Command, ...]

    def lines(self) -> Iterator[str]:
        """Yield the last lines of a command's output: the sentences, and the first of the commands to run next."""
        sentences = [sentence for sentence in self.sentences if sentence != NO_MODEL]
        yield from sentences
        if len(sentences) > 1 and self.commands:  # the run has results, and not only steps
            yield f"{self.commands[0].purpose}: {self.commands[0].words}"


@dataclass(frozen=True)
class Results:
    """The results that the verdict mentions. A number is None if its step has no artifact."""

    photographs: int | None
    accepted: int | None
    vases: int | None
    lost: int | None
    evaluation: Evaluation
    threshold: Choice | None  # a different threshold to try for clip-filter
    seeds: Mapping[str, int]  # seeds by step, for steps whose records contain a seed


def verdict(
    run: Run, events: Sequence[Event], history: Mapping[str, StepHistory], results: Results, active: float
) -> Verdict:
    """Return the verdict on `run` in any state. `active` is the time in seconds in which steps were active."""
    times = [event["time"] for event in events]
    last = next((event for event in reversed(events) if event["event"] in ENDS), None)
    state = run.state_after(last) if last else "not started"
    trouble = _trouble(run, events) if state == "failed" else None
    headline = {
        "failed": f"The run failed at {trouble.step}" if trouble else "The run failed",
        "finished": "The run is done",
        "not started": "The run has not started",
    }.get(state, f"The run is {state}" if state == "running" else f"The run was {state}")
    took = f", {duration(times[-1] - times[0])}" if times else ""
    if times and active and times[-1] - times[0] - active > LONG:
        took += f", of which steps were active for {duration(active)}"
    return Verdict(
        state=state,
        headline=headline,
        when=f"{datetime.fromtimestamp(times[0], UTC):%Y-%m-%d %H:%M} UTC{took}" if times else "",
        sentences=tuple(
            filter(None, (_steps_done(history), _photographs(results), _exact(results), _models(results, history)))
        ),
        trouble=trouble,
        commands=_commands(run, state, trouble, history, results),
    )


def _steps_done(history: Mapping[str, StepHistory]) -> str:
    planned = [step for step in history.values() if step.state != "skipped"]
    if not planned:
        return "No step has begun."
    done = [step for step in planned if step.state in DONE]
    kept = sum(step.state == "up to date" for step in done)
    share = f"All {len(done)} steps are" if len(done) == len(planned) else f"{len(done)} of {len(planned)} steps are"
    return f"{share} done{f'; {kept} of them {_were(kept)} up to date' if kept else ''}."


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _photographs(results: Results) -> str:
    if results.photographs is None or results.accepted is None:
        return ""
    told = f"Of {results.photographs:,} photographs, {results.accepted:,} {_were(results.accepted)} accepted"
    if results.vases is None:
        return told + "."
    shown = f"{told}; they show {results.vases:,} vase{'s' if results.vases != 1 else ''}"
    return shown + (f", and {results.lost:,} {_were(results.lost)} lost." if results.lost else ", and none was lost.")


def _exact(results: Results) -> str:
    """Return a sentence with each model's share of exact answers; '' if there are fewer than two models.

    The sentence is also '' if the share of a model is unknown. If a model was also evaluated without the picture, the
    sentence contains that share, too. Captions don't count, because they have no exact answer.
    """
    models, others = results.evaluation.get("models", {}), results.evaluation.get("baselines", {})
    shares = {name: exact_share(model) for name, model in models.items()}
    if len(shares) < 2 or None in shares.values():
        return ""
    shares |= {name: exact_share(other) for name, other in others.items() if name.endswith(BLIND)}
    told = ", ".join(f"{name} {percent(share)}" for name, share in shares.items() if share is not None)
    return f"Exact answers to held-out questions: {told}."


def exact_share(model: ModelEvaluation) -> float | None:
    """Return the share of exact answers to the questions about attributes; None if it is unknown."""
    figures = [metrics["exact"] for metrics in model.get("attributes", {}).values() if "exact" in metrics]
    known = [(figure["value"], figure["samples"]) for figure in figures if figure["value"] is not None]
    count = sum(samples for _, samples in known)
    return sum(value * samples for value, samples in known) / count if count else None


def _models(results: Results, history: Mapping[str, StepHistory]) -> str:
    names = list(results.evaluation.get("models", {}))
    pairs = [pair for pair in results.evaluation.get("pairs", []) if not pair["attribute"]]
    chosen = [pair for pair in pairs if pair["model"] == names[-1] and pair["other"] == names[0]] or pairs[:1]
    if chosen:
        return f"Reward on held-out rows: {chosen[0]['sentence']}."
    if names:
        return "No two models were compared on the same held-out rows."
    planned = "evaluate" in history and history["evaluate"].state != "skipped"
    return "The models are not evaluated yet." if planned else NO_MODEL


def _trouble(run: Run, events: Sequence[Event]) -> Trouble | None:
    ends = [event for event in events if event["event"] in ("run-failed", "step-failed")]
    if not ends:
        return None
    step = str(ends[-1].get("step", ""))
    said = [event for event in ends if event.get("step") == step]
    known = {name: value for event in said for name, value in event.items() if value not in ("", None)}
    code = known.get("exit_code")
    log = PurePath(str(known.get("log", ""))).name  # the launcher may have mounted the volume at a different path
    return Trouble(
        step=step,
        message=str(known.get("message", "The log says why.")),
        remedy=REMEDIES.get(code, RESUME) if isinstance(code, int) else RESUME,
        log=log,
        lines=log_tail(run.path / "logs" / log) if log else (),
    )


def log_tail(path: Path) -> tuple[str, ...]:
    """Return the last lines of a log without the stage's JSON events; () if the log can't be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not list(parse([line]))]
    return tuple(lines[-TAIL_LINES:])


def _commands(
    run: Run, state: str, trouble: Trouble | None, history: Mapping[str, StepHistory], results: Results
) -> tuple[Command, ...]:
    place = str(run.backend_settings.get("backend", "local"))
    in_cluster = place == "kubernetes"
    where = "--cluster cluster.yaml" if in_cluster else f"--volume {shlex.quote(str(run.volume.root))}"
    again = (
        f"vasevqa submit recipe.yaml {where}"
        if in_cluster
        else f"vasevqa run {shlex.quote(str(run.recipe))} {where}{f' --backend {place}' if place != 'local' else ''}"
    )
    name = shlex.quote(run.name)
    if state == "running":
        return (
            Command("Follow the run", f"vasevqa logs -f {name} {where}"),
            Command("See its steps", f"vasevqa status {name} {where}"),
        )
    resume = Command("Resume", again)
    if trouble:
        return (Command("Read the whole log", f"vasevqa logs {name} {shlex.quote(trouble.step)} {where}"), resume)
    if state != "finished":
        return (resume,)
    return tuple(_next(run, history, results, again, f"vasevqa download {name}" if in_cluster else ""))


def _next(
    run: Run, history: Mapping[str, StepHistory], results: Results, again: str, download: str
) -> Iterator[Command]:
    """Yield the commands that are useful after a finished run.

    `download` is the beginning of a command that downloads from the run. It is empty if the volume is on this machine.
    """
    done = [step for step in MODELS if step in history and history[step].state in DONE]
    if done and download:
        yield Command("Download the model", f"{download} steps/{done[0]} model --cluster cluster.yaml")
    elif done:
        yield Command("Copy the model", f"cp -rL {shlex.quote(str(run.path / 'steps' / done[0]))} model")
    trained = [step for step in TRAININGS if step in history and history[step].state in DONE]
    if done and trained:
        seed = 2 if results.seeds.get(trained[0]) == 1 else 1
        yield Command("See how far the result depends on chance", f"{again} --set {trained[0]}.seed={seed}")
    elif not done and not download:
        volume = shlex.quote(str(run.volume.root))
        yield Command("Label photographs by eye", f"vasevqa review {shlex.quote(run.name)} --volume {volume}")
    other = results.threshold
    if other is not None and not done:
        kept = f"which keeps {other.kept:,} photographs instead of {other.kept - other.more:,}"
        yield Command(f"Try a different threshold ({other.name}), {kept}", f"{again} {other.setting}")
