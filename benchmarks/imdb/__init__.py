"""Sentiment of film reviews."""
