"""What does the teacher do to a rollout, token by token?"""
