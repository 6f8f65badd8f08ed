"""How each kind of context is put into words. Templates are data: `{problem}` and `{context}` are replaced, nothing else."""

_REFERENCE = "{problem}\nReference solution: {context}"

TEACHER_TEMPLATES = {
    "solution": _REFERENCE,
    "answer": "{problem}\nThe answer is: {context}",
    "hint": "{problem}\nHint: {context}",
    "peer": _REFERENCE,
    "solution_else_peer": _REFERENCE,
    "peer_else_solution": _REFERENCE,
    # controls: worded like the real thing, so that only the information differs
    "other_problem": _REFERENCE,
    "wrong_answer": "{problem}\nThe answer is: {context}",
    "length_matched": _REFERENCE,
    "truncated": _REFERENCE,
}
