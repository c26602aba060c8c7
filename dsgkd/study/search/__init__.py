"""The search: what is tried next, over which space, in which arms, and what is stopped early."""
