"""Teachers: live, stored, random, shuffled, several."""
