"""The stages of a nightly run: one file per stage, named after the stage."""
