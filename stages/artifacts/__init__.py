"""Folders on disk: manifests, digests, atomic writes, recipes, errors and progress events."""
