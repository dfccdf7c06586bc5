"""What a phone family understands, one TOML file each (a later version fills this)."""
