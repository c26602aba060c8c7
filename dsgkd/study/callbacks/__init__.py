"""Who sees how a study goes?"""
