"""The template writes the same bytes as the codec."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maypole.bus.completion import CompletionTemplate
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.journal import Effect, Produced, StepCompleted

identifiers = st.text(min_size=1, max_size=300)
outputs = st.lists(st.tuples(identifiers, identifiers, st.binary(min_size=32, max_size=32)), max_size=70)


@given(identifiers, identifiers, identifiers, st.lists(identifiers, min_size=1, max_size=5), st.sampled_from(Effect), outputs)
def test_a_record_from_the_template_is_the_codecs_record(
    step: str, agent: str, subscription: str, parents: list[str], effect: Effect, emitted: list[tuple[str, str, bytes]]
) -> None:
    body = StepCompleted(
        step_id=step, agent=agent, subscription=subscription, parents=tuple(parents), effect=effect,
        outputs=tuple(Produced(event_id=event_id, type=event_type, digest=digest) for event_id, event_type, digest in emitted),
    )  # fmt: skip
    expected = Writer(StepCompleted, schema_of(StepCompleted).derived_id).encode(body)
    assert CompletionTemplate(agent, subscription, effect).value(step, parents, emitted) == expected
