"""Scripted demonstrations on real servers."""
