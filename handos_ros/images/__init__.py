"""Pictures and calibrations, of messages and of files."""
