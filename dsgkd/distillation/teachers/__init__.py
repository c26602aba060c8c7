"""Teachers: live, stored, random, several."""
