"""Pictures: reading them, deciding how to tile them, cutting the tiles, drawing the decision."""
