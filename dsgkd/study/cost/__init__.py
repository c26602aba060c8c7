"""What does a study cost, what will it cost, and what would it cost elsewhere?"""
