"""What the callers of ``callshield bench pipeline`` say: see ``clips.toml``."""
