"""Unit tests: they mirror the packages and need no root."""
