"""evaluate: held-out answers of each model, their metrics, and what they say side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vasevqa.dataset.rows import Row, held_out, image_root
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation import captions as caption_files
from vasevqa.evaluation import metrics
from vasevqa.evaluation.comparison import comparison, plot
from vasevqa.evaluation.figures import Evaluation, Metric, ModelEvaluation
from vasevqa.evaluation.params import EvaluateOptions, EvaluateParams
from vasevqa.models import check_model, local_model
from vasevqa.spec import StageCall

if TYPE_CHECKING:
    from vasevqa.evaluation import generation
    from vasevqa.spec import Output

MODELS = ("base", "sft", "grpo")


class _Encoders:
    """The embedding models, loaded when they are first needed."""

    def __init__(self, inputs: Mapping[str, Path], device: Any) -> None:
        self._inputs, self._device = inputs, device
        self._clip: Any = None
        self._sentences: Any = None

    @property
    def clip(self) -> Any:
        if self._clip is None and "clip_model" in self._inputs:
            from vasevqa.curation.clip import load_clip

            self._clip = load_clip(self._inputs["clip_model"], self._device, "fp32")
        return self._clip

    @property
    def sentences(self) -> Any:
        if self._sentences is None and "sentence_model" in self._inputs:
            from vasevqa.evaluation.encoders import SentenceModel

            self._sentences = SentenceModel(self._inputs["sentence_model"], self._device)
        return self._sentences


@dataclass(frozen=True)
class _Call(StageCall[EvaluateParams, EvaluateOptions]):
    """The stage's call, and the device that models run on."""

    device: Any


@dataclass(frozen=True)
class _HeldOut:
    """The rows to answer, each with its solution, and the folder that their images' paths are relative to."""

    rows: list[Row]
    root: Path

    def numbers(self, captions: bool) -> list[int]:
        """Which rows ask for a caption, or which do not."""
        return [number for number, row in enumerate(self.rows) if (row["attribute"] == "caption") == captions]


def evaluate(stage_call: StageCall[EvaluateParams, EvaluateOptions]) -> None:
    """Write evaluation.json, comparison.md, comparison.png, and every model's answers to `output`."""
    from vasevqa.curation.devices import resolve_device

    device = resolve_device(stage_call.options.device)
    call = _Call(**vars(stage_call), device=device)
    encoders = _Encoders(call.inputs, device)
    if "captions" in call.inputs:
        found = _caption_files(call, encoders)
    else:
        found = _models(call, encoders)
    call.output.write_json("evaluation.json", {**found, "params": call.params.model_dump()})
    call.output.write_text("comparison.md", comparison(found))
    with call.output.writing("comparison.png") as stream:
        stream.write(plot(found))
    best = {
        name: model["rewards"]["value"]
        for name, model in found["models"].items()
        if model.get("rewards", {}).get("value") is not None
    }
    told = ", ".join(f"{name} {value:.3f}" for name, value in best.items()) or f"{len(found['models'])} caption sets"
    call.progress.summary(
        f"{found['samples']} held-out rows; mean reward: {told}" if best else f"{found['samples']} captions of {told}",
        **best,
        samples=found["samples"],
    )


def _models(call: _Call, encoders: _Encoders) -> Evaluation:
    held = _held_out(call)
    folders, same = _folders(call)
    found: Evaluation = {"samples": len(held.rows), "models": {}, "same": same}
    call.progress.start("answering", len(held.rows) * len(folders), "answers")
    for name, folder in folders.items():
        answers = _answers(call, held, name, folder)
        found["models"][name] = _measured(held, answers, call.params, encoders)
        _write_answers(held, answers, name, call.output)
    return found


def _held_out(call: _Call) -> _HeldOut:
    if "dataset" not in call.inputs:
        raise ConfigError(
            "evaluate needs --dataset-dir (what build-dataset wrote) and a model, or --captions with --reference."
        )
    rows = held_out(call.inputs["dataset"])
    for row in rows:
        row["solution"] = row.get("solution") or row["messages"][-1]["content"]
    if call.params.max_samples is not None:
        rows = rows[: call.params.max_samples]
    return _HeldOut(rows, image_root(call.inputs["dataset"], call.options.image_root))


def _folders(call: _Call) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder of each model to ask; and of each that is the same as one before it, that one's name."""
    folders: dict[str, Path] = {}
    same: dict[str, str] = {}
    for name in MODELS:
        if name not in call.inputs:
            continue
        folder = local_model(call.inputs[name], "huggingface").resolve()
        twin = next((other for other, known in folders.items() if known == folder), None)
        if twin is not None:
            same[name] = twin
            call.progress.note(f"{name} is the same model as {twin}: its step was skipped")
            continue
        check_model(folder)
        folders[name] = folder
    if not folders:
        raise ConfigError("evaluate needs a model: --base, --sft or --grpo.")
    return folders, same


def _answers(call: _Call, held: _HeldOut, name: str, folder: Path) -> list[str]:
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


def _measured(held: _HeldOut, answers: Sequence[str], params: EvaluateParams, encoders: _Encoders) -> ModelEvaluation:
    rows, told, asked = held.rows, held.numbers(captions=True), held.numbers(captions=False)
    pictures = [held.root / rows[number]["images"][0] for number in told]
    pairs = [(answers[number], rows[number]["solution"]) for number in told]
    return {
        "attributes": metrics.attribute_accuracy(
            [rows[number] for number in asked],
            [answers[number] for number in asked],
            params.fuzzy_threshold,
            params.bootstrap,
            params.seed,
        ),
        "rewards": _rewards(rows, answers, params),
        "captions": _text_metrics(pairs, pictures, params, encoders),
    }


def _write_answers(held: _HeldOut, answers: Sequence[str], name: str, output: Output) -> None:
    """Captions in the original's format, and every answer beside its truth."""
    output.write_json(
        f"captions-{name}.json",
        [
            {"images": held.rows[number]["images"], "caption": answers[number], "data_by": name}
            for number in held.numbers(captions=True)
        ],
    )
    output.write_json(
        f"answers-{name}.json",
        [
            {
                "vase_id": row.get("vase_id", ""),
                "attribute": row["attribute"],
                "question": row["messages"][-2]["content"],
                "truth": row["solution"],
                "answer": answer,
            }
            for row, answer in zip(held.rows, answers, strict=True)
        ],
    )


def _rewards(rows: Sequence[Row], answers: Sequence[str], params: EvaluateParams) -> Metric:
    from vasevqa.reward.score import score

    values = [score(answer, row["solution"], row["attribute"]).value for row, answer in zip(rows, answers, strict=True)]
    return metrics.mean(values, params.bootstrap, params.seed)


def _text_metrics(
    pairs: Sequence[tuple[str, str]], pictures: Sequence[Path], params: EvaluateParams, encoders: _Encoders
) -> dict[str, Metric]:
    """The metrics of captions: (caption, truth) pairs, and their pictures where there are any."""
    rounds, seed = params.bootstrap, params.seed
    if not pairs:
        return {}
    said, true = [answer or " " for answer, _ in pairs], [truth for _, truth in pairs]
    found: dict[str, Metric] = {
        "bleu_1": metrics.bleu(said, true, 1, rounds),
        "bleu_4": metrics.bleu(said, true, 4, rounds),
        "lexical_similarity": metrics.mean(metrics.lexical(said, true), rounds, seed),
    }
    queries = targets = None
    about = {"query": "generated caption", "target": "picture of the vase (CLIP)" if pictures else "reference caption"}
    if encoders.clip is not None:
        from vasevqa.evaluation import encoders as embedding

        ours, theirs = embedding.clip_texts(encoders.clip, said), embedding.clip_texts(encoders.clip, true)
        found["clip_similarity"] = metrics.mean(metrics.cosines(ours, theirs).tolist(), rounds, seed)
        queries, targets = ours, embedding.clip_images(encoders.clip, pictures) if pictures else theirs
        about["target"] = "picture of the vase (CLIP)" if pictures else "reference caption (CLIP)"
    else:
        found["clip_similarity"] = metrics.unavailable("no CLIP model was given (--clip-model)")
    if encoders.sentences is not None:
        ours, theirs = encoders.sentences(said), encoders.sentences(true)
        found["semantic_similarity"] = metrics.mean(metrics.cosines(ours, theirs).tolist(), rounds, seed)
        found["frechet_distance"] = metrics.frechet(ours, theirs)
        if queries is None:
            queries, targets, about["target"] = ours, theirs, "reference caption (sentence model)"
    else:
        found["semantic_similarity"] = metrics.unavailable("no sentence model was given (--sentence-model)")
        found["frechet_distance"] = metrics.unavailable("no sentence model was given (--sentence-model)")
    for k in metrics.RECALLS:
        if queries is None:
            found[f"recall_at_{k}"] = metrics.unavailable("neither a CLIP nor a sentence model was given", **about)
        else:
            assert targets is not None
            found[f"recall_at_{k}"] = metrics.recall(np.asarray(queries), np.asarray(targets), k, rounds, seed, about)
    found["overall"] = metrics.overall(found)
    return found


def _caption_files(call: _Call, encoders: _Encoders) -> Evaluation:
    inputs, progress = call.inputs, call.progress
    if "reference" not in inputs:
        raise ConfigError("--captions needs --reference: a file in the same format with the true captions.")
    sets = caption_files.read_captions(inputs["reference"])
    if len(sets) != 1:
        raise DataError(
            f"{inputs['reference']} holds captions by {len(sets)} sources"
            f" ({', '.join(item.name for item in sets)[:80]}); a reference has one."
        )
    truth = sets[0]
    found: Evaluation = {
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
                f"No caption by {captions.name} is about images of the reference; compare the file names in both."
            )
        measured = _text_metrics([(said, right) for _, said, right in pairs], [], call.params, encoders)
        found["models"][captions.name] = {"captions": measured, "problems": problems}
        progress.advance()
    return found
