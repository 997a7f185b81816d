"""Real work, end to end: candidates for OpenAI's HumanEval, graded by a pool of workers."""
