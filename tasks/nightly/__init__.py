"""The stages of a night: one file a stage, named like the stage."""
