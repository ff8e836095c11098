"""Scripted demos on real servers."""
