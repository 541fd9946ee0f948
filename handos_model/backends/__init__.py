"""Inference backends: one `infer(inputs) -> outputs` each, imported when chosen."""
