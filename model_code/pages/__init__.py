"""The look of Tickline's own pages: one stylesheet, one frame, no script, nothing loaded."""
