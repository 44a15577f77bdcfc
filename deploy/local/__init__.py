"""Kafka, Jaeger and a schema registry on this machine without Docker, from their published packages.

A library for the tests and a program for people: `python -m deploy.local up --nodes 3`.
"""
