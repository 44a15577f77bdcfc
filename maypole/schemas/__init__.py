"""Contracts: event classes, their Avro schemas, the codec, the envelope, identities and topics.

Import what you need from the module that holds it; nothing is imported here, so that a part costs only itself.
"""
