"""What the end of a flow that was watched means: in words on standard error, and for the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from maypole.schemas.journal import Decision, StepCompleted, StepFailed
from maypole.services.cli.flow_picture import FlowPicture, short
from maypole.services.cli.flow_story import FlowStory, Standing, StepStory, waits_for_a_person
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.program import command
from maypole.services.saga import State


def told_end(picture: FlowPicture, timeout_seconds: float, dlq_at_hand: bool = True) -> ExitCode:
    """Say how it ended. `dlq_at_hand`: the dead letter can still be looked at after this command."""
    state = None if picture.state is None else picture.state.state
    match state:
        case State.COMMITTED:
            served = served_instead(picture.story)
            degraded = f"; degraded: {served}" if served else ""
            say("committed", "green", f"every expected step is done{_but_for(picture.story)}, in {picture.seconds or 0:.2f} s{degraded}")
            if dlq_at_hand:
                _hint_at_letters(picture)
            return ExitCode.DONE
        case State.COMPENSATED | State.COMPENSATED_MANUAL:
            say(state, "magenta", picture.story.because)
            _details(picture, dlq_at_hand)
            click.echo(f"  {_undone(picture.story)}, {picture.seconds or 0:.2f} s after it began", err=True)
            return ExitCode.COMPENSATED
        case State.STUCK | State.REOPENED if waits_for_a_person(picture.story.saga):
            tell_stuck(picture.story)
            _details(picture, dlq_at_hand)
            return ExitCode.STUCK
    if picture.without_subscriber:
        assert picture.state is not None
        root = picture.state.roots[0].type
        say("no_subscriber", "yellow", told_without_subscriber(root, picture.bystanders))
        hint(f"{command('agents', 'list')}, or {command('new', 'agent', 'NAME', '--on', root, '--emits', 'TYPE')}")
        return ExitCode.FAILED
    if picture.left_alone:
        say("aborting", "red", picture.story.because)
        click.echo("  no coordinator is running, and nobody else undoes what it did", err=True)
        _details(picture, dlq_at_hand)
        if dlq_at_hand:
            hint(f"{command('coordinator')}   (in another terminal; what waits is undone as soon as it is there)")
        return ExitCode.FAILED
    return _told_what_is_owed(picture, timeout_seconds, dlq_at_hand)


def told_without_subscriber(root: str, bystanders: Sequence[str]) -> str:
    near = "; ".join(bystanders)
    return f"no agent takes part in this flow: {near}" if near else f"no agent subscribes to {root}, so nothing will ever come of this flow"


def tell_stuck(story: FlowStory) -> None:
    """Who waits for a person, why, and what to type."""
    waiting = story.waiting
    say(story.saga.state, "red", f"{story.because}; it waits for a person" if story.because else "it waits for a person")
    for step in waiting:
        click.echo(f"  {step.agent} on {step.subscription} ({short(step.step_id)}): {step.person}", err=True)
        for error in step.told.undo_errors[-1:]:
            click.echo(f"    its undo failed: {error.detail}", err=True)
    for step in waiting[:1]:
        hint(decision_to_type(story, step))
        hint(command("saga", "show", story.saga.flow_id))


def decision_to_type(story: FlowStory, step: StepStory) -> str:
    """The command that goes on with a step that waits for a person: trying again where that is possible."""
    choice = step.choices[0] if step.choices else Decision.RETRY
    words = ("saga", "decide", story.saga.flow_id, "--step", short(step.step_id), "--decision", choice.lower())
    return f"{command(*words)} --note WHY"


def _but_for(story: FlowStory) -> str:
    """The optional steps that the flow went on without, and those that it went past on a person's word."""
    given_up = [step.agent for step in _given_up(story)]
    told = [f"{' and '.join(given_up)}, optional and failed"] if given_up else []
    told += [
        f"{step.agent}, {step.standing} by {step.told.decisions[-1][1].by}"
        for step in story.steps()
        if step.standing in (Standing.SKIPPED, Standing.RESOLVED) and not isinstance(step.end, StepCompleted)
    ]
    return f" but for {'; and '.join(told)}" if told else ""


def _given_up(story: FlowStory) -> list[StepStory]:
    return [step for step in story.steps() if step.standing in (Standing.FAILED, Standing.ABANDONED)]


def _hint_at_letters(picture: FlowPicture) -> None:
    """Nobody waits for the letters of steps that decided nothing: one that has not been seen yet is found by its agent."""
    for failed in (step.end for step in _given_up(picture.story) if isinstance(step.end, StepFailed)):
        letter = picture.letter_of(failed)
        hint(command("dlq", "list", failed.agent) if letter is None else command("dlq", "show", letter.place))


def served_instead(story: FlowStory) -> str:
    """Who did not call its handler, and what it did instead: `pricing on order.placed (default)`. Empty where all were called."""
    served = Counter(f"{step.agent} on {step.subscription} ({step.degraded})" for step in story.degraded)
    return ", ".join(f"{what} x{count}" if count > 1 else what for what, count in served.items())


def _undone(story: FlowStory) -> str:
    undone = [step.agent for step in story.undone]
    vouched = [f"{record.by} said {record.decision.lower()}: {record.note}" for _, record in story.decisions()]
    left = [step.agent for step in story.steps() if step.standing is Standing.SKIPPED]
    became = [f"undone: {', then '.join(undone)}"] if undone else []
    became += [f"left as it is: {', '.join(left)}"] if left else []
    return "; ".join((*(became or ["nothing had to be undone"]), *vouched))


def _details(picture: FlowPicture, dlq_at_hand: bool) -> None:
    served = served_instead(picture.story)
    if served:
        click.echo(f"  degraded: {served}", err=True)
    if isinstance(picture.story.cause, StepFailed):
        click.echo(f"  {picture.story.cause.detail}", err=True)
    if picture.buried is not None and dlq_at_hand:
        hint(command("dlq", "show", picture.buried.place))


def _told_what_is_owed(picture: FlowPicture, timeout_seconds: float, dlq_at_hand: bool) -> ExitCode:
    state = State.RUNNING if picture.state is None else picture.state.state
    owed = [f"{step.agent} on {step.trigger.type}" for step in picture.owed]
    asked = [f"{step.agent} to {step.asked_kind} {step.subscription}" for step in picture.story.steps() if step.asked_kind is not None]
    missing = f"; still asked: {', '.join(asked)}" if asked else f"; still owed: {', '.join(owed)}" if owed else ""
    because = f"{picture.story.because}; " if picture.story.because else ""
    say(state, "yellow", f"{because}not finished after {timeout_seconds:g} s{missing}")
    _details(picture, dlq_at_hand)
    for presence in picture.presences.values():
        click.echo(f"  {presence.agent} {presence.text}", err=True)
    for presence in picture.presences.values():
        if not presence.running:
            hint(f"{command('run', 'FILE')}   (whatever {presence.agent} was run from: then this flow goes on)")
            hint(f"{command('agents', 'retire', presence.agent)}   (flows that start from then on do not wait for it)")
    if all(presence.running for presence in picture.presences.values()):
        hint(f"{command('agents', 'list')} shows who is running; the flow goes on without being watched")
    return ExitCode.TIMED_OUT


def say(state: str, colour: str, text: str) -> None:
    click.echo(f"{click.style(state, fg=colour, bold=True)}  {text}", err=True)


def hint(text: str) -> None:
    click.echo(f"{click.style('try:', fg='cyan')} {text}", err=True)
