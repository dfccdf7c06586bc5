"""Common ground: message schema, settings, errors, bus; command line, process supervisor."""

__version__ = "0.1.0"
