"""Pods: tables."""

SCHEMA = ""
