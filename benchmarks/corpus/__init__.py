"""Texts of this project's own to train detectors on."""
