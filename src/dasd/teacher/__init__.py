"""Who the teacher is and what it sees."""
