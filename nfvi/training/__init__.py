"""Objectives, the fitting loop, its schedules and callbacks."""
