"""Cameras, boxes, point clouds, directions and units: pure functions of arrays and text."""
