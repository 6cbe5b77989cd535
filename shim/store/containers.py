"""Containers: tables."""

SCHEMA = ""
