"""What is tried next, over which space, and what is stopped early?"""
