"""Settings: their definition, their values and their reference."""
