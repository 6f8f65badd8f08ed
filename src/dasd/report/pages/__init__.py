"""What does a reader get? One file for each page, with its template beside it."""
