"""What a student learns from a teacher: criteria, layer mappings, the teacher."""
