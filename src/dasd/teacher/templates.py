"""How privileged context is put into words. Templates are data: `{problem}` and `{context}` are replaced, nothing else."""

TEACHER_TEMPLATES = {
    "solution": "{problem}\nReference solution: {context}",
}
