"""The stage evaluate answers the held-out questions with each model, computes metrics, and compares the models."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasevqa.dataset.rows import Row, held_out, image_root, training_rows
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation import baselines, metrics, original
from vasevqa.evaluation import captions as caption_files
from vasevqa.evaluation.caption_metrics import Caption, Encoders, caption_metrics
from vasevqa.evaluation.comparison import comparison, plot
from vasevqa.evaluation.confidence import agreement, confidence_of
from vasevqa.evaluation.figures import Evaluation, ModelEvaluation
from vasevqa.evaluation.mistakes import mistakes_of, write_answers
from vasevqa.evaluation.pairs import pairs_of
from vasevqa.evaluation.params import EvaluateOptions, EvaluateParams
from vasevqa.models import check_model, local_model, skeleton
from vasevqa.reward import vocabulary
from vasevqa.reward.truths import truths
from vasevqa.spec import StageCall

if TYPE_CHECKING:
    from vasevqa.evaluation import generation
    from vasevqa.evaluation.generation import Answer
    from vasevqa.spec import Output

MODELS = ("base", "sft", "grpo")


@dataclass(frozen=True)
class _Call(StageCall[EvaluateParams, EvaluateOptions]):
    """A call of the stage with the device on which the models run."""

    device: Any


@dataclass(frozen=True)
class _HeldOut:
    """The held-out rows with their solutions. The image paths in rows are relative to `root`."""

    rows: list[Row]
    root: Path

    def numbers(self, captions: bool) -> list[int]:
        """Return the indices of the rows that ask for a caption. If `captions` is False, return all other indices."""
        return [number for number, row in enumerate(self.rows) if (row["attribute"] == "caption") == captions]


def evaluate(stage_call: StageCall[EvaluateParams, EvaluateOptions]) -> None:
    """Write evaluation.json, comparison.md, comparison.png, and the answers of each model to the output folder."""
    from vasevqa.curation.devices import resolve_device

    device = resolve_device(stage_call.options.device)
    call = _Call(**vars(stage_call), device=device)
    encoders = Encoders(call.inputs, device)
    vocabulary.use(call.inputs.get("vocabulary"))
    if "captions" in call.inputs:
        evaluation = _caption_files(call, encoders)
    else:
        evaluation = _models(call, encoders)
    call.output.write_json("evaluation.json", {**evaluation, "params": call.params.model_dump()})
    call.output.write_text("comparison.md", comparison(evaluation))
    with call.output.writing("comparison.png") as stream:
        stream.write(plot(evaluation))
    best = {
        name: model["rewards"]["value"]
        for name, model in evaluation["models"].items()
        if model.get("rewards", {}).get("value") is not None
    }
    told = (
        ", ".join(f"{name} {value:.3f}" for name, value in best.items()) or f"{len(evaluation['models'])} caption sets"
    )
    shown = "".join(f"; {pair['sentence']}" for pair in evaluation.get("pairs", ()) if not pair["attribute"])
    rows = f"{evaluation['samples']} held-out rows of {evaluation.get('vases')} vases"
    call.progress.summary(
        f"{rows}; mean reward: {told}{shown}" if best else f"{evaluation['samples']} captions of {told}",
        **best,
        samples=evaluation["samples"],
    )


def _models(call: _Call, encoders: Encoders) -> Evaluation:
    held = _held_out(call)
    folders, same = _folders(call)
    vases = len({metrics.vase_of(row) for row in held.rows})
    evaluation: Evaluation = {"samples": len(held.rows), "vases": vases, "models": {}, "same": same, "baselines": {}}
    last = list(folders)[-1]
    call.progress.start("answering", len(held.rows) * (len(folders) + call.params.blind), "answers")
    answered: dict[str, list[metrics.Answered]] = {}
    for name, folder in folders.items():
        answers = _answers(call, held, name, folder)
        answered[name] = _answered(held, answers)
        evaluation["models"][name] = _measured(held, answered[name], call.params, encoders)
        evaluation["models"][name]["confidence"] = confidence_of(answered[name])
        evaluation["models"][name]["mistakes"] = mistakes_of(answered[name])
        _write_answers(held, answers, name, call.output)
    about = dict(baselines.ABOUT)
    constant: dict[str, dict[int, metrics.Answered]] = {}
    for name, texts in baselines.constants(training_rows(call.inputs["dataset"])).items():
        constant[name] = {
            number: metrics.answered(row, texts[row["attribute"]])
            for number, row in enumerate(held.rows)
            if row["attribute"] in texts
        }
        evaluation["baselines"][name] = _scores(list(constant[name].values()), call.params)
    blind = _blind(call, held, last, folders[last]) if call.params.blind else None
    if blind is not None:
        name = f"{last} without picture"
        answered[name] = blind
        evaluation["baselines"][name] = _scores(blind, call.params)
        about[name] = f"{last}, asked the same questions without the picture"
    _compare_on_common_rows(evaluation, {name: dict(enumerate(each)) for name, each in answered.items()} | constant)
    evaluation["about_baselines"] = about
    evaluation["pairs"] = pairs_of(answered, {f"{last} without picture": last} if blind is not None else {})
    with call.output.writing("answers.csv", "w") as stream:
        write_answers(stream, answered)
    return evaluation


def _blind(call: _Call, held: _HeldOut, model: str, folder: Path) -> list[metrics.Answered]:
    """Return the answers of a model to the same questions without the pictures."""
    unseen = _HeldOut([baselines.without_picture(row) for row in held.rows], held.root)
    once = replace(call, params=call.params.model_copy(update={"samples": 0}))
    answers = _answers(once, unseen, f"{model}-blind", folder)
    _write_answers(held, answers, f"{model}-blind", call.output)
    return _answered(held, answers)


def _compare_on_common_rows(evaluation: Evaluation, columns: Mapping[str, Mapping[int, metrics.Answered]]) -> None:
    """Add the mean reward over the common rows to every column.

    A column is a model or a baseline. `columns` maps its name to its answers by row number. The common rows are the
    rows that all columns answer. If every row is a common row, or if no row is, the function changes nothing.
    Otherwise, if a column doesn't answer all rows, its mean reward over its own rows is removed. Each line of the table
    therefore compares means over the same rows.
    """
    common = sorted(set.intersection(*(set(column) for column in columns.values())))
    if not common or len(common) == evaluation["samples"]:
        return
    for name, column in columns.items():
        figures = evaluation["models"].get(name) or evaluation["baselines"][name]
        rows = [column[number] for number in common]
        figures["common_rewards"] = metrics.mean([one.reward for one in rows], [one.vase for one in rows])
        if len(column) < evaluation["samples"]:
            del figures["rewards"]


def _held_out(call: _Call) -> _HeldOut:
    if "dataset" not in call.inputs:
        raise ConfigError(
            "evaluate needs either --dataset-dir (from build-dataset) and a model, or --captions and --reference; give"
            " the inputs for one of the two."
        )
    root = image_root(call.inputs["dataset"], call.options.image_root)
    rows = held_out(call.inputs["dataset"], root)
    for number, row in enumerate(rows, 1):
        where = f"{call.inputs['dataset'] / 'eval.jsonl'}, row {number}"
        if not row["images"] or any("role" not in turn or "content" not in turn for turn in row["messages"]):
            raise DataError(f"{where}: a picture, or a turn's role or content, is missing; build the dataset again.")
        row["attribute"] = row.get("attribute") or ""  # rows from other programs may have no attribute
        row["solution"] = _truth(row, where)
    if call.params.max_samples is not None:
        rows = _whole_vases(rows, call.params.max_samples, call.params.seed)
    return _HeldOut(rows, root)


def _truth(row: Row, where: str) -> str:
    """Return the true answer of a row, from its solution (any JSON value) or from its last message.

    Raise DataError if the solution can't be read or holds several answers.
    """
    said = row.get("solution")
    try:
        answers = truths(row["messages"][-1]["content"] if said in (None, "") else said, row.get("attribute"))
    except ValueError as error:
        raise DataError(f"{where}: the solution can't be read ({error}); write it as a text.") from None
    if len(answers) > 1:
        raise DataError(
            f"{where}: the solution holds {len(answers)} answers ({', '.join(answers)[:80]}), but evaluate needs one;"
            " keep only the best answer."
        )
    return answers[0]


def _whole_vases(rows: Sequence[Row], most: int, seed: int) -> list[Row]:
    """Choose vases at random with `seed`, and return all rows of these vases.

    The result has at most `most` rows, unless the first chosen vase alone has more than `most` rows.
    """
    sizes = Counter(metrics.vase_of(row) for row in rows)
    drawn: set[str] = set()
    left = most
    for vase in sorted(sizes, key=lambda vase: hashlib.sha256(f"{seed}-{vase}".encode()).digest()):
        if drawn and sizes[vase] > left:
            break
        drawn.add(vase)
        left -= sizes[vase]
    return [row for row in rows if metrics.vase_of(row) in drawn]


def _folders(call: _Call) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the folders of the distinct models, and the names of the models that have the folder of an earlier model.

    The first mapping leads from names to folders. The second mapping leads from the name of a repeated model to the
    name of the earlier model with the same folder. Raise ConfigError if no model was given.
    """
    folders: dict[str, Path] = {}
    same: dict[str, str] = {}
    for name in MODELS:
        if name not in call.inputs:
            continue
        folder = local_model(call.inputs[name], "huggingface").resolve()
        twin = next((other for other, known in folders.items() if known == folder), None)
        if twin is not None:
            same[name] = twin
            call.progress.note(f"{name} is the same model as {twin}: the step of {name} was skipped")
            continue
        check_model(folder)
        skeleton(folder)
        folders[name] = folder
    if not folders:
        raise ConfigError("evaluate needs a model; give --base, --sft or --grpo.")
    return folders, same


def _answered(held: _HeldOut, answers: Sequence[Answer]) -> list[metrics.Answered]:
    """Return the answers with their scores and their confidence."""
    return [
        replace(
            metrics.answered(row, answer.text),
            probability=answer.probability,
            agreement=agreement(answer.text, answer.samples, row["attribute"]),
        )
        for row, answer in zip(held.rows, answers, strict=True)
    ]


def _answers(call: _Call, held: _HeldOut, name: str, folder: Path) -> list[Answer]:
    from vasevqa.evaluation import generation

    def load() -> generation.Answers:
        if call.params.engine == "vllm":
            return generation.VllmAnswers(folder, held.root, call.params)
        return generation.TransformersAnswers(folder, held.root, call.params, call.device)

    def done(count: int) -> None:
        call.output.check()
        call.progress.advance(count)

    call.output.check()
    kept = call.output.root / f"answers-{name}.jsonl"
    who = generation.identity(folder, call.params)
    return generation.answer_all(held.rows, load, kept, call.options.batch_size, done, who)


def _scores(answered: Sequence[metrics.Answered], params: EvaluateParams) -> ModelEvaluation:
    asked = [one for one in answered if one.attribute != "caption"]
    return {
        "attributes": metrics.attribute_accuracy(asked, params.fuzzy_threshold),
        "rewards": metrics.mean([one.reward for one in answered], [one.vase for one in answered]),
    }


def _measured(
    held: _HeldOut, answered: Sequence[metrics.Answered], params: EvaluateParams, encoders: Encoders
) -> ModelEvaluation:
    told = held.numbers(captions=True)
    pictures = [held.root / held.rows[number]["images"][0] for number in told]
    captions = [Caption(answered[number].vase, answered[number].answer, answered[number].truth) for number in told]
    named = [original.Caption(picture.name, caption.said) for picture, caption in zip(pictures, captions, strict=True)]
    true = [original.Caption(picture.name, caption.true) for picture, caption in zip(pictures, captions, strict=True)]
    return {
        **_scores(answered, params),
        "captions": caption_metrics(captions, pictures, params, encoders),
        "original": original.figures(original.pairs(named, true), encoders.clip_texts, encoders.sentences),
    }


def _write_answers(held: _HeldOut, answers: Sequence[Answer], name: str, output: Output) -> None:
    """Write the captions in the original project's format, and all answers with the true answers."""
    output.write_json(
        f"captions-{name}.json",
        [
            {"images": held.rows[number]["images"], "caption": answers[number].text, "data_by": name}
            for number in held.numbers(captions=True)
        ],
    )
    output.write_json(
        f"answers-{name}.json",
        [
            {
                "vase_id": row.get("vase_id", ""),
                "attribute": row["attribute"],
                "question": metrics.question_of(row),
                "truth": row["solution"],
                "answer": answer.text,
                "probability": None if answer.probability is None else round(answer.probability, 6),
                **({"samples": answer.samples} if answer.samples else {}),
            }
            for row, answer in zip(held.rows, answers, strict=True)
        ],
    )


def _caption_files(call: _Call, encoders: Encoders) -> Evaluation:
    inputs, progress = call.inputs, call.progress
    if "reference" not in inputs:
        raise ConfigError("--captions needs --reference; give a caption file that holds the true captions.")
    sets = caption_files.read_captions(inputs["reference"])
    if len(sets) != 1:
        raise DataError(
            f"{inputs['reference']} holds captions by {len(sets)} sources"
            f" ({', '.join(item.name for item in sets)[:80]}); give a reference file with captions by one source."
        )
    truth = sets[0]
    evaluation: Evaluation = {
        "samples": len(truth.by),
        "models": {},
        "same": {},
        "reference_problems": dict(truth.problems),
    }
    loaded = caption_files.read_captions(inputs["captions"])
    progress.start("comparing", len(loaded), "caption sets")
    for captions in loaded:
        pairs = caption_files.pair(captions, truth)
        problems = {kind: items for kind, items in captions.problems.items() if items}
        if problems:
            progress.note(f"{captions.name}: " + ", ".join(f"{len(items)} {kind}" for kind, items in problems.items()))
        if not pairs:
            raise DataError(
                f"No caption by {captions.name} belongs to an image in the reference file; compare the image names in"
                " the caption file and the reference file."
            )
        told = [Caption(" ".join(key), said, right) for key, said, right in pairs]
        measured = caption_metrics(told, [], call.params, encoders)
        paired = original.pairs(captions.entries, truth.entries)
        evaluation["models"][captions.name] = {
            "captions": measured,
            "problems": problems,
            "original": original.figures(paired, encoders.clip_texts, encoders.sentences),
        }
        progress.advance()
    return evaluation
