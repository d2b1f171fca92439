"""What a step costs on hardware that is not there, read from programs compiled for it."""
