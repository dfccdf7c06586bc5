"""What each family of phones and headsets understands: one TOML file a family, and what reads it.

- :mod:`~firmware_profiles.schema`: what such a file may say, each fact with its source;
- :mod:`~firmware_profiles.catalogue`: reading and checking them all;
- :mod:`~firmware_profiles.matching`: which one a User-Agent means;
- :mod:`~firmware_profiles.rendering`: the provisioning fragment in the vendor's own format;
- :mod:`~firmware_profiles.conformance`: what in a phone's configuration would fail silently;
- :mod:`~firmware_profiles.online`: what a phone answers when it is asked.
"""
