"""How a handler says that its event can never succeed."""


class Reject(Exception):
    """Raised by a handler: no repetition will help. The event goes to the agent's dead-letter topic with this reason."""
