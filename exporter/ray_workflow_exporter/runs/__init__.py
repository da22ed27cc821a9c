"""Make one Run of what both sources know of it."""
