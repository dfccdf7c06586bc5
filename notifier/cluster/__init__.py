"""Several nodes as one floor: what each says on the bus, hears from it, and does for the others."""
