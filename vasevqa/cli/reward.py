"""`vasevqa reward`: explain the reward of an answer."""

from __future__ import annotations

import json

import click

from vasevqa.reward import score as rewards
from vasevqa.reward.vocabulary import ATTRIBUTES


@click.command(context_settings={"ignore_unknown_options": True})  # a truth may begin with a minus sign
@click.argument("answer")
@click.argument("truth")
@click.option(
    "--attribute",
    type=click.Choice(ATTRIBUTES),
    help="the attribute that the question asks for; unset: inferred from TRUTH",
)
@click.option("--question", default="", help="the question; an answer that only repeats it gets no reward")
@click.option(
    "--paper", is_flag=True, help="compute the paper's combined reward; TRUTH is JSON with a vase's attributes"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def reward(answer: str, truth: str, attribute: str | None, question: str, paper: bool, as_json: bool) -> None:
    """Show and explain the reward that ANSWER gets if TRUTH is the correct answer.

    Example: vasevqa reward "c. 500-450 BC" "-525 to -475" --attribute date
    """
    if paper:
        try:
            known = json.loads(truth)
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise click.UsageError('With --paper, TRUTH is JSON, such as {"shape": "kylix", "date": "-500 to -450"}.')
        score = rewards.paper_score(answer, {str(name): str(value) for name, value in known.items()})
    else:
        score = rewards.score(answer, truth, attribute, question)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "value": round(score.value, 4),
                    "parts": {name: round(part, 4) for name, part in score.parts.items()},
                    "why": score.why,
                }
            )
        )
        return
    click.echo(f"{score.value:.3f}  {score.why}")
    for name, part in score.parts.items():
        click.echo(f"  {name:<16} {part:.3f}")
