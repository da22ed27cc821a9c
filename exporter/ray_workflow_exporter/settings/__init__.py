"""Settings: their definition and their values."""
