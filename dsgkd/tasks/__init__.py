"""What a student is trained for and judged by: a file a task."""
