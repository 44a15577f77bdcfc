"""Every name that a span carries. Nowhere else is one spelled.

Source: OpenTelemetry semantic conventions, messaging and Kafka. They are unstable, and their Python constants are
private or deprecated, so they are written out here; what begins with `maypole.` is ours.
"""

from __future__ import annotations

from typing import Final

# -- resource --------------------------------------------------------------------------------------------------
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
SERVICE_VERSION: Final = "service.version"
HOST_NAME: Final = "host.name"

# -- messaging -------------------------------------------------------------------------------------------------
SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
"""A string, as the conventions have it."""
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
OFFSET: Final = "messaging.kafka.offset"

KAFKA: Final = "kafka"
SEND: Final = "send"
PROCESS: Final = "process"

# -- errors ----------------------------------------------------------------------------------------------------
ERROR_TYPE: Final = "error.type"
EXCEPTION: Final = "exception"
"""The name of a span event."""
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# -- ours ------------------------------------------------------------------------------------------------------
FLOW_ID: Final = "maypole.flow.id"
FLOW_TYPE: Final = "maypole.flow.type"
BUSINESS_KEY: Final = "maypole.business.key"
CAUSATION_ID: Final = "maypole.causation.id"
STEP_ID: Final = "maypole.step.id"
STATE_VERSION: Final = "maypole.state.version"
DELIVERY_ATTEMPT: Final = "maypole.delivery.attempt"
QUEUE_WAIT_MS: Final = "maypole.queue_wait_ms"
OUTCOME: Final = "maypole.outcome"
OUTCOME_DETAIL: Final = "maypole.outcome.detail"
BREAKER: Final = "maypole.breaker"
BREAKER_STATE: Final = "maypole.breaker.state"
BREAKER_BECAUSE: Final = "maypole.breaker.because"
INSTANCE: Final = "maypole.instance.id"
AGENT: Final = "maypole.agent"
COMMAND_ID: Final = "maypole.command.id"
LINK: Final = "maypole.link"
"""On a link: why it is there."""

OUTCOME_RETRY: Final = "retry"

LINK_AMBIENT: Final = "published within"
LINK_FOREIGN: Final = "traceparent of a foreign client"
LINK_ATTEMPT: Final = "attempt before"
LINK_UNDONE: Final = "step undone"
LINK_PART: Final = "part of the join"

# -- span names and span events --------------------------------------------------------------------------------
START: Final = "start"
COMPENSATE: Final = "compensate"
IN_PROGRESS: Final = "in_progress"
RETRY_SCHEDULED: Final = "retry_scheduled"
DEAD_LETTERED: Final = "dead_lettered"
BREAKER_EVENT: Final = "breaker_"
"""And then the state: `breaker_opened`, `breaker_half_open`, `breaker_closed`."""
