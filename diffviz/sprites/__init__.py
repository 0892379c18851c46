"""Procedural 16x16 sprites of five classes: the data that the shipped network learned."""
